#!/bin/sh
# The promise of docs/adding-a-primitive.md, kept literally: the file printed there is put into a copy of the tree, and without
# another change it must be built, listed, documented, tested by the tests of every primitive, and able to train.
# Wants MADRAS (the command; its folder lends its objects, so that only what is new is compiled) and MDR_TEST_DIR.
set -u
export LC_ALL=C
here=$(cd "$(dirname "$0")/.." && pwd)
tree=$MDR_TEST_DIR/tree
log=$MDR_TEST_DIR/log
lent=$(dirname "$MADRAS")
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
failed=0
check() {                                            # check NAME COMMAND...: the command must succeed
    name=$1
    shift
    if "$@" > "$log" 2>&1; then echo "ok $name"; else
        echo "not ok $name"
        tail -20 "$log" | sed 's/^/# /'
        failed=1
    fi
}
has() { grep -qF -- "$1" "$2"; }

mkdir -p "$tree/build"
cp -Rp "$here/Makefile" "$here/src" "$here/scripts" "$here/test" "$tree/"
if [ -d "$lent/obj/src" ] && [ -d "$lent/gen" ]; then
    mkdir -p "$tree/build/obj"
    cp -Rp "$lent/gen" "$tree/build/"
    for f in src gen flags members; do
        if [ -e "$lent/obj/$f" ]; then cp -Rp "$lent/obj/$f" "$tree/build/obj/"; fi
    done
fi
sed -n '/^```c$/,/^```$/p' "$here/docs/adding-a-primitive.md" | sed '/^```/d' > "$tree/src/layer/ema.c"
cd "$tree" || exit 1

check "the document holds a file" grep -q '^const LayerDef mdr_layers_ema\[\]' src/layer/ema.c
check "no warning in it" "${CC:-cc}" -std=c17 -D_GNU_SOURCE -Isrc -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror \
    -fsyntax-only src/layer/ema.c
check "built without another change" make all build/obj/test/layer_generic DEPS=no
check "in the table" has mdr_layers_ema build/gen/layer_table.c
build/madras list layers > "$MDR_TEST_DIR/list" 2>&1
check "listed" has "gated exponential moving average" "$MDR_TEST_DIR/list"
check "its parameter is documented" has "gate the average by silu" "$MDR_TEST_DIR/list"
check "tested like every primitive" build/obj/test/layer_generic
train() {
    build/madras train --task in-context-recall --arch "$1" --seed 1 --json --set vocab_size=8 --set seq_len=16 --set dim=32 \
        --set num_train_examples=256 --set num_test_examples=64 --set epochs=3 --set batch_size=32 --set lr=0.002
}
train 'ema swiglu' > "$MDR_TEST_DIR/train" 2> "$MDR_TEST_DIR/train.err"
check "trains" test $? -eq 0
# The loss of the third epoch lies below that of the first.
falls() {
    sed -n 's/.*"train_loss": *\([0-9.e-]*\).*/\1/p' "$1" | awk 'NR == 1 { a = $1 } { b = $1 } END { exit !(NR >= 2 && b < a) }'
}
check "and its loss falls" falls "$MDR_TEST_DIR/train"
train 'ema(gat=true) swiglu' > "$MDR_TEST_DIR/misspelt" 2>&1
check "a misspelt parameter is named" has 'did you mean `gate`?' "$MDR_TEST_DIR/misspelt"
exit $failed
