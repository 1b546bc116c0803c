#!/bin/sh
# What a person reads first: overview, help of each command, listings, the man page. Goldens lie in test/cli.
. "$(dirname "$0")/cli/cli.sh"
"$MADRAS" > overview.out 2>&1
golden overview
for c in bench check data list show train; do
    "$MADRAS" $c --help > help-$c.out 2>&1
    golden help-$c
    "$MADRAS" help $c > again.out 2>&1
    check "help $c is $c --help" cmp again.out help-$c.out
done
for k in tasks model training protocols; do
    "$MADRAS" list $k > list-$k.out 2>&1
    golden list-$k
done
# Primitives and ops come from their files: one of each stands for all, and every one has a line of its own.
"$MADRAS" list primitives > primitives.out
sed -n '/^mh-attention$/,/^[a-z]/p' primitives.out | sed '$d' > list-primitive.out
golden list-primitive
"$MADRAS" list ops > ops.out
sed -n '/^rmsnorm /p' ops.out > list-op.out
golden list-op
"$MADRAS" list layers > layers.out
check "layers are primitives" cmp layers.out primitives.out
for k in primitives tasks model training protocols ops; do
    "$MADRAS" list $k --json > $k.json
    check "list $k --json: its head" sh -c "grep -q '^ \"schema\": \"madras.list/1\",$' $k.json && grep -q '^ \"protocol\": null,$' $k.json"
    names=$("$MADRAS" list $k | grep -c '^[^ ]')
    check "list $k --json has the rows of the text" test "$(grep -c '^   "name": ' $k.json)" -eq "$names" -a "$names" -gt 0
done
"$MADRAS" list protocols --show taste > taste.yml
check "a protocol's file is a protocol" "$MADRAS" bench --protocol ./taste.yml --dry-run --store none.db mamba
check "a dry run makes no store" test ! -e none.db
cat overview.out help-*.out primitives.out list-*.out ops.out > all.out
check "80 columns" awk 'length($0) > 80 { bad = 1; print } END { exit bad }' all.out
"$MADRAS" --man > madras.1
check "the man page names every option" sh -c 'for o in $(sed -n "s/^  --\([a-z-]*\).*/\1/p" help-*.out | sort -u); do
    grep -q "$(echo "$o" | sed "s/-/.-/g")" madras.1 || { echo "$o"; exit 1; }; done'
if command -v man > /dev/null && man --version 2> /dev/null | grep -q man-db; then
    man --warnings -l madras.1 > man.out 2> man.err
    check "the man page has no errors" test ! -s man.err -a -s man.out
else skip "man page: no man-db"; fi
check "version" sh -c '"$MADRAS" --version | grep -qE "^instruction class (avx2-fma|plain)$"'
exit $failed
