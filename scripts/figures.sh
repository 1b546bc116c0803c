#!/bin/sh
# Runs every program of bench/ and keeps what it prints:   figures.sh OBJECTS OUT
set -u
objects=$1 out=$2 bad=0 ran=0
mkdir -p "$out"
for f in bench/*.c; do
    [ -f "$f" ] || continue
    n=$(basename "$f" .c)
    echo "== $n"
    if "$objects/bench/$n" > "$out/$n.new"; then
        mv "$out/$n.new" "$out/$n.txt"
        cat "$out/$n.txt"
        ran=$((ran + 1))
    else
        echo "$n: failed" >&2
        bad=1
    fi
done
if [ "$ran" -eq 0 ]; then echo "bench/ has no program that ran" >&2; bad=1; fi
exit $bad
