# Shared by test/cli_*.sh: sourced, with MADRAS and MDR_TEST_DIR set. Runs in MDR_TEST_DIR; $cli is the folder of the goldens.
# UPDATE=1 writes the goldens anew.
set -u
export LC_ALL=C
unset NO_COLOR MADRAS_STORE MADRAS_CLASS XDG_STATE_HOME
cli=$(cd "$(dirname "$0")/cli" && pwd)
export HOME="$MDR_TEST_DIR" TERM=dumb CUDA_VISIBLE_DEVICES=          # a GPU here would be named on standard error
cd "$MDR_TEST_DIR" || exit 1
failed=0
ok() { echo "ok $1"; }
no() {                                               # no NAME [FILE]
    echo "not ok $1"
    [ -z "${2:-}" ] || head -15 "$2" | sed 's/^/# /'
    failed=1
}
skip() { echo "ok # SKIP $1"; }
check() {                                            # check NAME COMMAND...: the command must succeed
    name=$1
    shift
    if "$@" > check.log 2>&1; then ok "$name"; else no "$name" check.log; fi
}
golden() {                                           # golden NAME: file NAME.out must be the golden NAME
    [ -z "${UPDATE:-}" ] || cp "$1.out" "$cli/$1.txt"
    if diff "$cli/$1.txt" "$1.out" > diff.log 2>&1; then ok "$1"; else no "$1" diff.log; fi
}
# Numbers with a point, keys and instruction classes are masked: they differ between machines or from run to run.
mask() {
    sed -E 's/-?[0-9]+\.[0-9]+(e[-+][0-9]+)?/N/g; s/[0-9a-f]{64}/KEY/g; s/[0-9a-f]{16}/KEY/g; s/[0-9a-f]{12} /KEY /g
        s/(avx2-fma|plain) float32/CLASS float32/; s/"class":"[^"]*"/"class":"CLASS"/; s/  +/  /g; s/ +$//'
}
field() { sed -n "s/.*\"$2\":\([^,}]*\).*/\1/p" "$1" | tail -1; }       # field FILE NAME: the last value of NAME in JSON lines
timeless() { sed -E 's/"seconds":[^,}]*//' "$1"; }
small="--set vocab_size=8 --set seq_len=16 --set dim=16 --set num_train_examples=64 --set num_test_examples=32"
small="$small --set epochs=3 --set batch_size=16 --set lr=0.002"
cat > tiny.yml <<'Y'
base: taste
help: two tasks, a few steps
model: {dim: 16}
train: {steps: 8, batch_size: 16}
tasks:
  compression:
    baseline: {vocab_size: 8, seq_len: 8, num_train_examples: 64, num_test_examples: 32}
  in-context-recall:
    baseline: {vocab_size: 8, seq_len: 16, num_train_examples: 64, num_test_examples: 32}
    train: {steps: 8}
Y
