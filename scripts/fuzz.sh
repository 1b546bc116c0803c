#!/bin/sh
# Replays each fuzz target's corpus:   fuzz.sh PROGRAM...   PROGRAM's files are those of test/fuzz/<name of PROGRAM>
set -u
passed=0 failed=0
for t in "$@"; do
    n=$(basename "$t")
    if "$t" "test/fuzz/$n"; then
        echo "ok fuzz $n"
        passed=$((passed + 1))
    else
        echo "not ok fuzz $n"
        failed=$((failed + 1))
    fi
done
if [ $((passed + failed)) -eq 0 ]; then echo "no fuzz target"; failed=1; fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
