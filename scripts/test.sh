#!/bin/sh
# Runs cmocka programs and scripts (*.sh, which print "ok NAME" or "not ok NAME"), two at a time, and counts their cases.
#   test.sh OBJECTS BINARY PROGRAM-OR-SCRIPT...     BINARY (may be empty) is the command; logs go to OBJECTS/test-logs
# Last line: "N passed, N failed[, N skipped]". Exit 1 if a case failed, a program died or nothing ran.
# A program finds MADRAS (absolute path of the command) and MDR_TEST_DIR (a fresh folder of its own) in its environment.
set -u
export LC_ALL=C CMOCKA_MESSAGE_OUTPUT=TAP
objects=$1
logs=$objects/test-logs
rm -rf "$logs"
mkdir -p "$logs"
MADRAS=$2
shift 2
if [ -n "$MADRAS" ]; then case $MADRAS in /*) ;; *) MADRAS=$PWD/$MADRAS ;; esac; fi
case $logs in /*) root=$logs ;; *) root=$PWD/$logs ;; esac
export MADRAS

one() {                                             # one NAME COMMAND...: leaves NAME.log and NAME.rc
    n=$1
    shift
    mkdir -p "$logs/$n.dir"
    MDR_TEST_DIR=$root/$n.dir timeout "${MDR_TEST_TIMEOUT:-240}" ${MDR_TEST_WRAP:-} "$@" > "$logs/$n.log" 2>&1 < /dev/null
    echo $? > "$logs/$n.rc"
}
count() { grep -c "^[[:space:]]*$2" "$logs/$1.log" ; }

running=0
for f in "$@"; do
    n=$(basename "$f")
    case $f in *.sh) set -- "$n" sh "$f" ;; *) set -- "$n" "$f" ;; esac
    one "$@" &
    running=$((running + 1))
    if [ $((running % ${MDR_TEST_JOBS:-2})) -eq 0 ]; then wait; fi
done
wait

passed=0 failed=0 skipped=0
for rc in "$logs"/*.rc; do
    [ -f "$rc" ] || continue
    n=$(basename "$rc" .rc)
    code=$(cat "$rc")
    skip=$(count "$n" '\(not \)\{0,1\}ok .*# SKIP')          # older cmocka: "not ok 5 # SKIP name"
    ok=$(($(count "$n" 'ok ') - $(count "$n" 'ok .*# SKIP')))
    bad=$(($(count "$n" 'not ok ') - $(count "$n" 'not ok .*# SKIP')))
    why=
    if [ "$bad" -eq 0 ] && [ "$code" -ne 0 ]; then bad=1 why=" (exit status $code)"; fi
    if [ "$bad" -eq 0 ] && [ $((ok + skip)) -eq 0 ]; then bad=1 why=" (ran nothing)"; fi
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + skip))
    if [ "$bad" -gt 0 ]; then
        echo "  FAILED  $n: $ok passed, $bad failed$why; $logs/$n.log:"
        grep -vE '^[[:space:]]*ok ' "$logs/$n.log" | head -40 | sed 's/^/      /'
    elif [ "$skip" -gt 0 ]; then
        echo "  ok      $n: $ok passed, $skip skipped"
        sed -n 's/^.*ok [0-9 ]*\(# SKIP.*\)/      \1/p' "$logs/$n.log"
    else
        echo "  ok      $n: $ok passed"
    fi
done
if [ $((passed + failed)) -eq 0 ]; then echo "  nothing ran"; failed=1; fi
more=
if [ "$skipped" -gt 0 ]; then more=", $skipped skipped"; fi
echo "$passed passed, $failed failed$more"
[ "$failed" -eq 0 ]
