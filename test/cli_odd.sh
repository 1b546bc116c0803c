#!/bin/sh
# Odd machines: no AVX2, one processor, another locale, paths with spaces, terminals of all kinds.
. "$(dirname "$0")/cli/cli.sh"
t="--task in-context-recall --arch mamba $small"
"$MADRAS" train $t --json > here.json
MADRAS_CLASS=plain "$MADRAS" train $t --json > plain.json 2> plain.err
check "class plain trains" test $? -eq 0 -a "$(field plain.json class | head -1)" = '"plain"'
check "and says so once" test "$(grep -c 'without AVX2' plain.err)" -eq 1 -a "$(wc -l < plain.err)" -eq 1
if [ "$(field here.json class)" = '"plain"' ]; then skip "class plain has keys of its own: there is no other here"; else
    check "class plain has keys of its own" test "$(field plain.json key)" != "$(field here.json key)"
fi
near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; exit !(d < 1e-2 && d > -1e-2) }'; }
check "class plain learns the same" near "$(field plain.json test_loss)" "$(field here.json test_loss)"
MADRAS_CLASS=plain "$MADRAS" bench --protocol tiny.yml --tasks compression --store p.db mamba > plain.txt 2> /dev/null
check "the caption names the class" grep -q 'float32, plain' plain.txt
MADRAS_CLASS=plian "$MADRAS" train $t > class.out 2> class.err
check "another class is refused" sh -c "test $? -eq 2 -a ! -s class.out && grep -qx 'madras: MADRAS_CLASS must be plain or nothing, got \"plian\"' class.err"
timeless here.json > here
if command -v taskset > /dev/null; then
    taskset -c "$(taskset -cp $$ | sed 's/.*: \([0-9]*\).*/\1/')" "$MADRAS" train $t --json | sed -E 's/"seconds":[^,}]*//' > one
    check "one processor, the same bits" cmp here one
else skip "one processor: no taskset"; fi

mkdir -p "a folder with spaces"
cp tiny.yml "a folder with spaces/my protocol.yml"
check "paths with spaces" "$MADRAS" bench --protocol "a folder with spaces/my protocol.yml" --store "a folder with spaces/my store.db" --tasks compression mamba
check "... the store" "$MADRAS" show --store "a folder with spaces/my store.db"

if command -v localedef > /dev/null; then
    mkdir -p locale
    localedef -i de_DE -f UTF-8 locale/de_DE.UTF-8 > locale.log 2>&1
    if [ "$(LOCPATH=$PWD/locale LC_ALL=de_DE.UTF-8 locale decimal_point 2> /dev/null)" = , ]; then
        LOCPATH="$PWD/locale" LC_ALL=de_DE.UTF-8 "$MADRAS" train $t --json | sed -E 's/"seconds":[^,}]*//' > german
        check "a locale with a decimal comma" cmp here german
    else skip "a locale with a decimal comma: cannot be made here"; fi
else skip "a locale with a decimal comma: no localedef"; fi

esc=$(printf '\033')
if command -v script > /dev/null && script -qec true /dev/null > /dev/null 2>&1 < /dev/null; then
    pty() { script -qec "stty cols 80; $1" /dev/null < /dev/null > pty.out 2>&1; }
    TERM=xterm NO_COLOR= pty "\"$MADRAS\" bench --protocol tiny.yml --store pty.db --set steps=200 mamba"
    check "a terminal sees progress" grep -q '\[#*\.*\] *[0-9]*% ' pty.out
    tr '\r' '\n' < pty.out | sed "s/$esc\\[[0-9;]*m//g" > lines
    check "progress stays within 80 columns" awk 'length($0) > 80 { bad = 1 } END { exit bad || NR < 5 }' lines
    TERM=xterm NO_COLOR=1 pty "\"$MADRAS\" bench --protocol tiny.yml --store pty.db mamba"
    check "NO_COLOR" sh -c "! grep -q '$esc' pty.out"
    TERM=dumb pty "\"$MADRAS\" bench --protocol tiny.yml --store dumb.db --set steps=200 mamba"
    check "TERM=dumb" sh -c "! grep -q '$esc' pty.out && ! grep -q '%  *[0-9]* s left' pty.out"
else skip "terminals: no script"; fi
"$MADRAS" bench --protocol tiny.yml --store pipe.db mamba > pipe.out 2> pipe.err
check "into a file: no escapes, no progress" sh -c "! grep -q '$esc' pipe.out && test ! -s pipe.err"
exit $failed
