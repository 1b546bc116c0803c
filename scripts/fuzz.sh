#!/bin/sh
# Replays each fuzz target's corpus:   fuzz.sh PROGRAM...   PROGRAM's files are those of test/fuzz/<name of PROGRAM>
# Looks for new findings:   fuzz.sh --find PROGRAM SECONDS   a libFuzzer program. An input that crashes, leaks or hangs is kept as
# test/fuzz/<name>/crash-..., leak-... or timeout-...; inputs that reach new code are collected in PROGRAM.corpus.
set -u
if [ "${1:-}" = --find ]; then
    corpus=test/fuzz/$(basename "$2")
    case $3 in '' | *[!0-9]* | 0*) echo "madras: SECONDS is a number from 1 on, got \"$3\"" >&2; exit 2 ;; esac
    mkdir -p "$2.corpus" "$corpus"
    "$2" -max_total_time="$3" -timeout=30 -print_final_stats=1 -artifact_prefix="$corpus/" "$2.corpus" "$corpus" || {
        echo "madras: the input that did this lies in $corpus; commit it with the fix, make run-fuzz replays it" >&2
        exit 1
    }
    exit 0
fi
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
