#!/bin/sh
# Runs every program of bench/ but those that want a GPU or stores, and keeps what it prints, under a head that says when and where:   figures.sh OBJECTS OUT
# The order: the whole step, the whole learning, then the parts. CC may be set.
set -u
export LC_ALL=C
objects=$1 out=$2 bad=0 ran=0
mkdir -p "$out"
cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo 2> /dev/null | head -1)
compiler=$("${CC:-cc}" --version | head -1)
cpus=$(nproc 2> /dev/null || echo '?')
parts=$(for f in bench/*.c; do basename "$f" .c; done | grep -vx -e train -e learn -e gpu -e alike)
for n in train learn $parts; do
    [ -f "bench/$n.c" ] || continue
    echo "== $n"
    case $n in train) threads=2 ;; learn) threads="all" ;; matmul) threads="1, then all" ;; *) threads=1 ;; esac
    {
        echo "# $n, $(date -u '+%Y-%m-%d %H:%M UTC')"
        echo "# ${cpu:-unknown processor}, $(uname -m); $cpus CPUs; threads used: $threads"
        echo "# $compiler"
    } > "$out/$n.new"
    if "$objects/bench/$n" >> "$out/$n.new"; then
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
