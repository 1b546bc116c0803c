#!/bin/sh
# The rules of the house that no compiler checks.   lint.sh OBJECTS
# Prints "ok lint RULE" or "not ok lint RULE" with the places, then "N passed, N failed".
set -u
export LC_ALL=C
objects=$1
found=$(mktemp)
trap 'rm -f "$found"' EXIT
passed=0 failed=0
rule() {                                            # rule NAME: what stands in $found is wrong
    if [ -s "$found" ]; then
        echo "not ok lint $1"
        sed 's/^/      /' "$found"
        failed=$((failed + 1))
    else
        echo "ok lint $1"
        passed=$((passed + 1))
    fi
    : > "$found"
}
rooms="base ir op exec layer model task train store study report cli"
sources() { find src -name '*.c' -o -name '*.h' -o -name '*.cu' | sort; }

# One name, one file: a base name says which file is meant. Every table.c walks the generated table of its room; an op may share
# its name with the declaration in ir or the layer it serves.
find src -name '*.c' ! -path 'src/op/*' | sed 's|.*/||' | grep -vx 'table\.c' | sort | uniq -d | while read -r n; do
    find src -name "$n" ! -path 'src/op/*' | sort | tr '\n' ' '
    echo
done > "$found"
rule "unique file names"

# A room includes its own files and the public headers <room>/<room>.h of rooms above it; base/real_math.h, rng.h and both.h serve all;
# what concerns GPUs alone has public headers of its own.
for f in $(sources); do
    sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$f" | sed "s|^|$f |"
done | awk -v order="$rooms" '
    BEGIN { n = split(order, r, " "); for (i = 1; i <= n; i++) place[r[i]] = i }
    { split($1, p, "/"); own = p[2]; slash = index($2, "/"); room = slash ? substr($2, 1, slash - 1) : ""
      if (room == own || $2 == "base/real_math.h" || $2 == "base/rng.h" || $2 == "base/both.h") next
      second = $2 ~ /^(op\/cuda|op\/cuda_images|op\/cuda_update|exec\/accel|model\/agree|task\/draw)\.h$/
      if (room in place && place[room] < place[own] && ($2 == room "/" room ".h" || second)) next
      print $1 ": includes \"" $2 "\"" }' > "$found"
rule "includes"

# A kernel may be let in while the one before still runs (mdr_begin in op/cuda.h).
for f in $(find src \( -name '*.cu' -o -name '*.h' \) | sort); do
    awk -v f="$f" '
        body { if ($0 !~ /^    mdr_begin\(\);$/) print f ":" NR ": a kernel begins with mdr_begin();"; body = 0 }
        /__global__/ && !/^[ ]*(\/?\*|\/\/)/ { kernel = 1
            if (/[{};][^)]*$/) { print f ":" NR ": { of a kernel stands on a line of its own"; kernel = 0 } }
        kernel && /^\{$/ { kernel = 0; body = 1 }
        kernel && /^\}/ { print f ":" NR ": a kernel without { on a line of its own"; kernel = 0 }' "$f"
done > "$found"
rule "kernels begin with mdr_begin"

# Below cli nothing prints or ends the process; base's memory may, when there is none left.
for o in $(grep -o "$objects/src/[^ ]*\.o" "$objects/members" | grep -v "/src/cli/"); do
    [ -f "$o" ] || continue
    nm -u "$o" | awk -v o="$o" '
        $NF ~ /^(v?printf|__v?printf_chk|puts|putchar|perror|stdout|stderr|_?exit|_Exit|quick_exit|abort)(@.*)?$/ {
            if (o ~ /src\/base\/memory\.o$/ && $NF ~ /^_exit/) next
            print o ": uses " $NF }'
done > "$found"
rule "no printing or ending below cli"

# Below cli no writable globals: what a run depends on is passed to it.
for o in $(grep -o "$objects/[^ ]*\.o" "$objects/members" | grep -v "/src/cli/"); do
    [ -f "$o" ] || continue
    objdump -t "$o" | awk -v o="$o" '
        / O / { for (i = 2; i < NF; i++) if ($i ~ /^(\.|\*COM\*)/) sec = $i
                if (sec ~ /^(\.data|\.bss|\.tdata|\.tbss|\*COM\*)/ && sec !~ /^\.data\.rel\.ro/)
                    if (!(o ~ /src\/base\/memory\.o$/ && $NF == "oom_handler")) print o ": writable " $NF " in " sec }'
done > "$found"
rule "no writable globals below cli"

for f in $(sources) $(find test bench scripts -type f \( -name '*.c' -o -name '*.h' -o -name '*.cpp' -o -name '*.py' -o -name '*.sh' \) | sort); do
    n=$(wc -l < "$f")
    [ "$n" -le 600 ] || echo "$f: $n lines, at most 600"
    awk -v f="$f" '{ gsub(/[\200-\277]/, "") } length($0) > 160 { print f ":" NR ": " length($0) " columns, at most 160" }' "$f"
done > "$found"
rule "files of at most 600 lines, lines of at most 160 columns"

for f in $(find src test bench -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cpp' | sort); do
    awk -v f="$f" '
        !start && /^[A-Za-z_][^=]*\(/ { first = NR }
        !start && first && /(^|\)[ ]*)\{[ ]*(\/\*.*)?$/ && !/=[ ]*\{/ { start = first }
        !start && /;[ ]*(\/\*.*)?$/ { first = 0 }
        /^\}/ { if (start && NR - start + 1 > 80) print f ":" start ": function of " NR - start + 1 " lines, at most 80"; start = first = 0 }' "$f"
done > "$found"
rule "functions of at most 80 lines"

for f in $(sources); do
    case $(head -c 2 "$f") in '/*') ;; *) echo "$f: does not begin with a comment that says what it is" ;; esac
done > "$found"
rule "file heads"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
