#!/bin/sh
# The promise of docs/adding-a-primitive.md, kept literally: in a copy of the tree the file printed there is written where it says,
# and its commands are run one by one as they stand there. Only train and bench get a --config more, which makes them short.
# Then: what the commands should have shown. Nothing else of the tree is changed.
# Wants MADRAS (the command; its folder or the one above lends plain objects, so that only what is new is compiled) and MDR_TEST_DIR.
set -u
export LC_ALL=C
here=$(cd "$(dirname "$0")/.." && pwd)
doc=$here/docs/adding-a-primitive.md
tree=$MDR_TEST_DIR/tree
small=$MDR_TEST_DIR/small.yml
cc=${CC:-cc}
# What the make that runs this test was told is not for the make of the copy.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES CC SAN BUILD ROOMS TESTS OPT CFLAGS CPPFLAGS LDFLAGS WERROR V MADRAS_CLASS
export DEPS=no MADRAS_STORE="$MDR_TEST_DIR/trials.db"
failed=0
check() {                                            # check NAME COMMAND...: the command must succeed
    name=$1
    shift
    if "$@" > "$MDR_TEST_DIR/log" 2>&1; then echo "ok $name"; else
        echo "not ok $name"
        tail -20 "$MDR_TEST_DIR/log" | sed 's/^/# /'
        failed=1
    fi
}
has() { grep -qF -- "$1" "$2"; }
block() { sed -n '/^```'"$1"'$/,/^```$/p' "$doc" | sed '/^```/d'; }

mkdir -p "$tree/build/obj"
cp -Rp "$here/Makefile" "$here/src" "$here/scripts" "$here/test" "$tree/"
lent=$(dirname "$MADRAS")
[ -d "$lent/obj/src" ] || lent=$(dirname "$lent")
same() { sed 's/-I[^ ]*gen//; s/-Werror//' "$1" | tr -s ' '; }
cd "$tree" || exit 1
if [ -d "$lent/obj/src" ] && [ -d "$lent/gen" ]; then
    cp -Rp "$lent/gen" build/
    for f in src gen flags members; do cp -Rp "$lent/obj/$f" build/obj/; done
    make -n all > /dev/null 2>&1                     # writes its own flags: objects are lent if nothing but a folder differs
    if [ "$(same build/obj/flags)" = "$(same "$lent/obj/flags")" ]; then touch -t 200001010000 build/obj/flags; fi
fi

file=$(sed -n 's/^Put this into `\(.*\)`:$/\1/p' "$doc")
check "the document names the file" test "$file" = src/layer/ema.c
block c > src/layer/ema.c
check "no warning in it" "$cc" -std=c17 -D_GNU_SOURCE -Isrc -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fsyntax-only \
    src/layer/ema.c

{
    echo 'model: {dim: 32}'
    echo 'train: {steps: 48, batch_size: 16}'
    echo 'tasks:'
    for t in compression fuzzy-in-context-recall in-context-recall memorization noisy-in-context-recall selective-copying; do
        echo "  $t: {baseline: {num_train_examples: 256, num_test_examples: 32}, train: {steps: 48}}"
    done
} > "$small"

# n.out: what command n printed
block sh | sed 's/[[:space:]]*#.*//' > "$MDR_TEST_DIR/commands"
n=0
while read -r line; do
    n=$((n + 1))
    case $line in *madras\ train* | *madras\ bench*) run="$line --config '$small'" ;; *) run=$line ;; esac
    sh -c "$run" > "$MDR_TEST_DIR/$n.out" 2> "$MDR_TEST_DIR/$n.err" < /dev/null
    rc=$?
    if [ $rc -ne 0 ]; then tail -20 "$MDR_TEST_DIR/$n.out" "$MDR_TEST_DIR/$n.err" > "$MDR_TEST_DIR/why"; else : > "$MDR_TEST_DIR/why"; fi
    check "$line" sh -c 'cat "$2"; exit "$1"' - $rc "$MDR_TEST_DIR/why"
done < "$MDR_TEST_DIR/commands"
check "the document has five commands" test $n -eq 5

cd "$MDR_TEST_DIR" || exit 1
check "in the table" has mdr_layers_ema "$tree/build/gen/layer_table.c"
check "listed" has "gated exponential moving average" 2.out
check "its parameter is documented" has "gate the average by silu" 2.out
check "tested like every primitive" sh -c 'tail -1 3.out | grep -Eq "^[1-9][0-9]* passed, 0 failed"'
# A row of the table: epoch, step, train loss, valid loss, ... The last train loss lies below the first.
falls() { awk '$1 ~ /^[0-9]+$/ && $2 ~ /^[0-9]+$/ { if (!n++) a = $3; b = $3 } END { exit !(n >= 2 && b + 0 < a + 0) }' "$1"; }
check "it trains: the loss falls" falls 4.out
check "it has a score" sh -c 'grep -Eq "^\(ema swiglu\)\*2( +[0-9.]+\*?){6}" 5.out'
"$tree/build/madras" train --task in-context-recall --arch 'ema(gat=true) swiglu' --config "$small" > misspelt 2>&1
check "a misspelt parameter is named" has 'did you mean `gate`?' misspelt

# Another formula is another trial, the same one is not.
cd "$tree" || exit 1
count() { build/madras show --csv | grep -c '^[0-9a-f].*ema'; }
again() { build/madras bench --tasks memorization --config "$small" '(ema swiglu)*2' > "$MDR_TEST_DIR/again" 2>&1; }
before=$(count)
again
check "what was scored is not run again" test "$(count)" -eq "$before"
sed -i 's/UN_NEG, 0.0, keep/UN_SQUARE, 0.0, keep/' src/layer/ema.c
make > /dev/null 2>&1
again
check "after its formula changed it is" test "$(count)" -eq $((before + 1))
cd "$MDR_TEST_DIR" || exit 1

# Two slips of somebody who begins with a copy.
cd "$tree" || exit 1
cp src/layer/ema.c src/layer/other.c
make > "$MDR_TEST_DIR/slip.out" 2> "$MDR_TEST_DIR/slip"
check "a copy that keeps the array's name" has 'src/layer/other.c defines mdr_layers_ema[]; after the file'"'"'s name it must be mdr_layers_other[]' \
    "$MDR_TEST_DIR/slip"
rm src/layer/other.c
for f in rope.cpu.c rope.cu; do                      # the same for an op's other files
    cp "src/op/$f" "src/op/other${f#rope}"
    sh scripts/tables.sh "$MDR_TEST_DIR/gen" > "$MDR_TEST_DIR/slip.out" 2>&1
    check "a copy of $f" sh -c 'grep -q "defines mdr_[a-z]*_rows_rope\[\]; after the file.s name it must be mdr_[a-z]*_rows_other\[\]" "$1"' \
        - "$MDR_TEST_DIR/slip.out"
    rm "src/op/other${f#rope}"
done
sed 's/mdr_layers_ema/mdr_layers_other/' src/layer/ema.c > src/layer/other.c
make > "$MDR_TEST_DIR/slip.out" 2>&1
build/madras train --task in-context-recall --arch 'ema' --config "$small" > "$MDR_TEST_DIR/slip" 2>&1
check "a copy that keeps the layer's name" has 'two files of src/layer define a layer `ema`' "$MDR_TEST_DIR/slip"
check "... both are listed, and all behind them" sh -c 'test "$(build/madras list primitives | grep -c "^ema$")" -eq 2 &&
    build/madras list primitives | grep -q "^swiglu$"'
sed 's/mdr_tasks_selective_copying/mdr_tasks_my_copying/' src/task/selective_copying.c > src/task/my_copying.c
make > "$MDR_TEST_DIR/slip.out" 2>&1
build/madras train --task selective-copying --arch mamba --config "$small" > "$MDR_TEST_DIR/slip" 2>&1
check "a copy that keeps a task's name" has 'two files of src/task define a task `selective-copying`' "$MDR_TEST_DIR/slip"
exit $failed
