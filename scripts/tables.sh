#!/bin/sh
# Writes the tables that follow from file names (ops, layers, tasks, commands, protocols) into the folder $1 and prints the
# files made. A file is replaced only if its text changes, so nothing is compiled in vain; a deleted source vanishes from it.
set -eu
export LC_ALL=C
gen=$1
mkdir -p "$gen"

put() {                                             # put FILE: stdin becomes $gen/FILE
    tmp=$gen/$1.new.$$
    cat > "$tmp"
    if cmp -s "$tmp" "$gen/$1"; then rm -f "$tmp"; else mv -f "$tmp" "$gen/$1"; fi
    echo "$gen/$1"
}
names() {                                           # names ROOM TYPE PREFIX SUFFIX: sources that define PREFIX<name>[]
    for f in src/"$1"/*"$4"; do
        [ -f "$f" ] || continue
        n=$(basename "$f" "$4")
        case $n in *.*) continue ;; esac            # x.cpu.c is no x.cpu
        id=$(echo "$n" | tr '-' '_')
        if grep -q "^\(extern \"C\" \)\{0,1\}const $2 $3$id\[" "$f"; then echo "$id"; fi
    done
}
own_names() {                                       # own_names ROOM TYPE PREFIX SUFFIX: a file whose array has another's name would be left out
    for f in src/"$1"/*"$4"; do
        [ -f "$f" ] || continue
        n=$(basename "$f" "$4")
        case $n in *.*) continue ;; esac
        id=$3$(echo "$n" | tr '-' '_')
        has=$(sed -nE "s/^(extern \"C\" )?const $2 ($3[A-Za-z0-9_]*)\[.*/\2/p" "$f" | head -1)
        if [ -n "$has" ] && [ "$has" != "$id" ]; then
            echo "$f defines ${has}[]; after the file's name it must be ${id}[]"
            exit 1
        fi
    done
}
array() {                                           # array TYPE PREFIX FILES names...
    type=$1 prefix=$2 files=$3
    shift 3
    for n in "$@"; do echo "extern const $type $prefix$n[];"; done
    echo "extern const $type *const $files[];"
    echo "const $type *const $files[] = {"
    for n in "$@"; do echo "    $prefix$n,"; done
    echo "    NULL};"
}
table() {                                           # table ROOM TYPE PREFIX FILES
    [ -f "src/$1/$1.h" ] || return 0
    own_names "$1" "$2" "$3" .c
    if [ "$1" = op ]; then
        own_names op CpuRow mdr_cpu_rows_ .cpu.c
        own_names op CudaRow mdr_cuda_rows_ .cu
    fi
    {
        echo "/* Made by scripts/tables.sh. */"
        echo "#include \"$1/$1.h\""
        # shellcheck disable=SC2046
        array "$2" "$3" "$4" $(names "$1" "$2" "$3" .c)
        if [ "$1" = op ]; then
            echo "#if defined __x86_64__"
            # shellcheck disable=SC2046
            array CpuRow mdr_cpu_rows_ mdr_cpu_files $(names op CpuRow mdr_cpu_rows_ .cpu.c)
            echo "#else"
            array CpuRow mdr_cpu_rows_ mdr_cpu_files
            echo "#endif"
            echo "#if defined MDR_CUDA"
            # shellcheck disable=SC2046
            array CudaRow mdr_cuda_rows_ mdr_cuda_files $(names op CudaRow mdr_cuda_rows_ .cu)
            echo "#else"
            array CudaRow mdr_cuda_rows_ mdr_cuda_files
            echo "#endif"
        fi
    } | put "$5"
}
table op OpRow mdr_op_rows_ mdr_op_files op_table.c
table layer LayerDef mdr_layers_ mdr_layer_files layer_table.c
table task TaskDef mdr_tasks_ mdr_task_files task_table.c
table cli CommandDef mdr_commands_ mdr_command_files cli_command_table.c

if [ -f src/study/study.h ] && grep -q ProtocolFile src/study/study.h; then
    {
        echo "/* Made by scripts/tables.sh. */"
        echo "#include \"study/study.h\""
        echo "#pragma GCC diagnostic ignored \"-Woverlength-strings\""
        echo "extern const ProtocolFile mdr_protocol_files[];"
        echo "const ProtocolFile mdr_protocol_files[] = {"
        for f in src/study/protocols/*.yml; do
            [ -f "$f" ] || continue
            echo "    {\"$(basename "$f" .yml)\","
            sed 's/\\/\\\\/g; s/"/\\"/g; s/?/\\?/g; s/	/\\t/g; s/^/     "/; s/$/\\n"/' "$f"
            echo "    },"
        done
        echo "    {NULL, NULL}};"
    } | put study_protocols.c
fi
