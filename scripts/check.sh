#!/bin/sh
# Everything: tests with both compilers (warnings are errors), sanitizers, valgrind, replay of the fuzz corpora, lint, rooms, and
# what test/slow/product.sh asks of the product.
#   check.sh BUILD     works in BUILD/check; the last line sums all: "N passed, N failed[, N skipped]"
# Sanitizer, valgrind and clang runs set MDR_TEST_SMALL=1: tests take small shapes.
set -u
export LC_ALL=C
make=${MAKE:-make}
build=$1/check
mkdir -p "$build"
jobs=$(nproc 2> /dev/null || echo 2)
passed=0 failed=0 skipped=0

add() {                                             # add NAME LOG STATUS: counts the last "N passed, N failed" of LOG
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$2" | tail -1)
    if [ -z "$line" ]; then
        echo "  FAILED  $1: no result; $2:"
        tail -25 "$2" | sed 's/^/      /'
        failed=$((failed + 1))
        return
    fi
    p=${line%% passed*}
    f=${line#*passed, } f=${f%% failed*}
    s=0
    case $line in *skipped) s=${line##*failed, } s=${s%% skipped} ;; esac
    if [ "$3" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    if [ "$f" -gt 0 ]; then
        echo "  FAILED  $1: $line"
        grep -vE '^  (ok |CC|AR|LD)|^ok ' "$2" | tail -60
    else
        echo "  ok      $1: $line"
    fi
}
step() {                                            # step NAME COMMAND...
    name=$1 start=$(date +%s)
    shift
    log=$build/$(echo "$name" | tr -c 'a-z0-9\n' '_').log
    "$@" > "$log" 2>&1
    add "$name ($(($(date +%s) - start)) s)" "$log" $?
}
m() { $make -j"$jobs" -k BUILD="$build" WERROR=1 "$@"; }
small() { MDR_TEST_SMALL=1 m "$@"; }

step "lint" m lint
step "rooms" m rooms
step "tests, cc" m run-tests
step "tests, clang" small CC=clang run-tests

sanitized() { ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 small SAN="$1" run-tests; }
step "tests, address and undefined" sanitized address
step "tests, thread" sanitized thread

step "fuzz replay" small SAN=address run-fuzz

valgrind_run() {
    MDR_TEST_WRAP='valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite' MDR_TEST_VALGRIND=1 \
        small TESTS='base_% ir_%' run-tests
}
step "tests of base and ir, valgrind" valgrind_run

product() { m all && m CC=clang all && sh test/slow/product.sh "$build/madras" "$build/clang/madras" "$build"; }
step "product: both compilers, valgrind, archive" product

if [ "$skipped" -gt 0 ]; then
    grep -h '# SKIP' "$build"/*.log | sort | uniq -c | sed 's/^/  skipped /'
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
