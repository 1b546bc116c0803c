#!/bin/sh
# What `make test` has no time for:   product.sh GCC-BINARY CLANG-BINARY BUILD
# Both compilers' products give the same bits; valgrind finds nothing; the tree builds from an archive without .git, under a path
# with spaces, not written to. MAKE may be set.
set -u
export LC_ALL=C
here=$(cd "$(dirname "$0")/../.." && pwd)
abs() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
gcc=$(abs "$1") clang=$(abs "$2") dir=$(abs "$3")/product
rm -rf "$dir"
mkdir -p "$dir"
cd "$dir" || exit 1
passed=0 failed=0 skipped=0
check() {                                            # check NAME COMMAND...
    name=$1
    shift
    if "$@" > "$dir/log" 2>&1; then echo "ok $name"; passed=$((passed + 1)); else
        echo "not ok $name"
        tail -20 "$dir/log" | sed 's/^/# /'
        failed=$((failed + 1))
    fi
}
skip() { echo "ok # SKIP $1"; skipped=$((skipped + 1)); }
small="--set vocab_size=8 --set seq_len=24 --set dim=32 --set num_train_examples=128 --set num_test_examples=64"
small="$small --set epochs=2 --set batch_size=32 --set lr=0.002"
train() { "$@" train --task "$task" --arch "$arch" $small --json | sed -E 's/"seconds":[^,}]*//'; }

for arch in 'mh-attention swiglu' 'hyena mlp' 'mamba(d_state=2)*2' 'mh-sliding-attention(window=4) swiglu'; do
    for task in in-context-recall compression; do
        train "$gcc" > gcc.json
        train "$clang" > clang.json
        check "gcc and clang, same bits: $arch, $task" sh -c 'grep -q "\"event\":\"end\"" gcc.json && cmp gcc.json clang.json'
        MADRAS_CLASS=plain train "$gcc" > gcc.json 2> /dev/null
        MADRAS_CLASS=plain train "$clang" > clang.json 2> /dev/null
        check "class plain too: $arch, $task" sh -c 'grep -q "\"event\":\"end\"" gcc.json && cmp gcc.json clang.json'
    done
done

if command -v valgrind > /dev/null; then
    grind() { valgrind -q --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite,possible "$gcc" "$@"; }
    tiny="--set vocab_size=8 --set seq_len=12 --set dim=16 --set num_train_examples=32 --set num_test_examples=16 --set batch_size=16 --set steps=3"
    for arch in 'mh-attention(n_heads=4) swiglu' 'hyena mlp' 'mamba'; do
        check "valgrind: train $arch" grind train --task in-context-recall --arch "$arch" $tiny --checkpoint c.bin --trace t.json
        rm -f c.bin
    done
    check "valgrind: bench" grind bench --tasks compression,memorization --store v.db $tiny mamba
    check "valgrind: show" grind show --store v.db --json
    check "valgrind: data" grind data --task fuzzy-in-context-recall --show 3 --out data --set num_train_examples=32
    check "valgrind: list" grind list primitives
    check "valgrind: an error" sh -c 'valgrind -q --error-exitcode=99 --leak-check=full "$1" bench "mambo*2"; test $? -eq 2' - "$gcc"
else skip "valgrind: not installed"; fi

if git -C "$here" rev-parse HEAD > /dev/null 2>&1; then
    mkdir "a tree"
    git -C "$here" archive HEAD | tar -x -C "a tree"
    chmod -R a-w "a tree"
    touch stamp
    built() { ${MAKE:-make} -C "a tree" -j"$(nproc)" BUILD="$dir/built" DEPS=no all install DESTDIR="$dir/installed" PREFIX=/usr; }
    unset MAKEFLAGS MFLAGS MAKELEVEL
    check "an archive without .git builds and installs from a path with spaces" built
    check "the product runs" "$dir/installed/usr/bin/madras" --version
    check "the man page is installed" test -s "$dir/installed/usr/share/man/man1/madras.1"
    check "nothing was written into the source tree" sh -c 'test -z "$(find "a tree" -newer stamp)"'
    chmod -R u+w "a tree"
else skip "an archive without .git: this is one already"; fi

if [ $skipped -gt 0 ]; then echo "$passed passed, $failed failed, $skipped skipped"; else echo "$passed passed, $failed failed"; fi
[ $failed -eq 0 ]
