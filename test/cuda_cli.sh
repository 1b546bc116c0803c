#!/bin/sh
# The commands on a GPU, played by the emulator: MADRAS_EMU is the madras built with EMU=1. Devices named, listed, missing, too small,
# failing; trials with keys of their own; what a GPU does not do is refused.
. "$(dirname "$0")/cli/cli.sh"
M=$MADRAS_EMU
b="bench --protocol tiny.yml --store s.db"
refused() {                                          # refused NAME CODE PATTERN COMMAND...: one sentence on standard error
    name=$1 code=$2 pattern=$3
    shift 3
    "$@" > r.out 2> r.err
    rc=$?
    if [ $rc -eq "$code" ] && [ ! -s r.out ] && [ "$(wc -l < r.err)" -eq 1 ] && grep -qE "^madras: .*$pattern" r.err; then ok "$name"; else
        no "$name" r.err
        echo "# exit $rc, wanted $code and: $pattern"
    fi
}
"$M" list devices > devices.txt
check "list devices" grep -q '^cuda:0  emulated GPU, 4 processors, 4.0 GiB (.* free)$' devices.txt
check "list devices: class and precisions" grep -q '^        class cuda-sm90; float32, bf16$' devices.txt
"$M" list devices --json > devices.json
check "list devices --json" sh -c 'grep -q "\"name\": \"cuda:0\"" devices.json && test "$(grep -c "\"usable\": true" devices.json)" -eq 2'
MDR_EMU_DEVICES=0 "$M" list devices > none.txt
check "list devices without one" grep -q '^cuda    none: ' none.txt
MDR_EMU_DEVICES=0 "$M" list devices --json > none.json
check "list devices --json without one" sh -c 'grep -q "\"name\": \"cuda\"" none.json && test "$(grep -c "\"usable\": false" none.json)" -eq 1'

t="train --task in-context-recall --arch mamba $small"
"$M" $t --device cuda > gpu.txt 2> gpu.err
check "train on a GPU" sh -c 'grep -q "^cuda-sm90 float32, trial" gpu.txt && grep -q "^done after 12 steps" gpu.txt'
check "and says nothing else" test ! -s gpu.err
"$M" $t --device cuda --precision bf16 --json > half.jsonl
check "train in bf16, as JSON" test "$(field half.jsonl status)" = '"done"' -a "$(grep -c '"event":"epoch"' half.jsonl)" -eq 3
"$M" $t --device cuda --json > one.jsonl
"$M" $t --device cuda:0 --json > again.jsonl
timeless one.jsonl > one.txt
timeless again.jsonl > again.txt
check "the same bits twice" cmp one.txt again.txt
"$M" $t --json > cpu.jsonl 2> cpu.err
check "float32 and auto is the CPU, which names the GPU" grep -q 'running on the CPU; --device cuda would train on the emulated GPU' cpu.err
check "with a key of its own" test "$(field cpu.jsonl key)" != "$(field one.jsonl key)"
for o in '--checkpoint x.bin' '--trace x.json' '--plan' '--threads 2'; do
    # shellcheck disable=SC2086
    refused "train on a GPU with $o" 2 'does not go with a GPU' "$M" $t --device cuda $o
done
refused "a GPU that is not there" 2 'there is no GPU 3: 1 is visible' "$M" $t --device cuda:3
MDR_EMU_DEVICES=0 refused "no GPU at all" 2 'no GPU can be used: no NVIDIA GPU is visible' "$M" $t --device cuda

"$M" $b --device cuda --precision bf16 mamba 'A=mh-attention(n_heads=4) swiglu' > first.txt 2> first.err
check "bench on a GPU" grep -q 'bf16, cuda-sm90\.$' first.txt
check "it says how many at a time" grep -qE '^madras: 1 trial of .*: 1 at a time in ' first.err
"$M" $b --precision bf16 mamba 'A=mh-attention(n_heads=4) swiglu' > second.txt 2> second.err
check "bf16 and auto is the GPU; the second time nothing runs" grep -qx 'madras: 4 of 4 trials are in s.db' second.err
check "and the table is the same" cmp first.txt second.txt
MDR_EMU_DEVICES=0 "$M" $b --stored --precision bf16 mamba 'A=mh-attention(n_heads=4) swiglu' > stored.txt 2> stored.err
check "--stored wants no GPU: the same table" sh -c 'cmp first.txt stored.txt && test ! -s stored.err'
if command -v python3 > /dev/null; then
    cp s.db two.db
    python3 -c 'import sqlite3
with sqlite3.connect("two.db") as db: db.execute("update trial set class = \"cuda-sm100\" where id = 1")'
    refused "--stored: a store of two kinds of GPU" 2 'two.db has trials of cuda-sm100 and of cuda-sm90, and one table never mixes them' \
        "$M" bench --protocol tiny.yml --store two.db --stored --precision bf16 mamba
else skip "--stored: a store of two kinds of GPU: no python3"; fi
"$M" $b --device cuda --seeds 3 --tasks compression mamba > seeds.txt 2> seeds.err
check "float32 has trials of its own, three side by side" grep -qE '^madras: 3 trials .* 3 at a time' seeds.err
"$M" $b --device cuda mamba mamba > twice.txt 2> twice.err
check "an architecture twice runs once" sh -c 'test "$(grep -c "trial.* of mamba" twice.err)" -eq 1'
"$M" $b --device cuda --dry-run 'mamba mamba' > dry.txt 2> dry.err
check "--dry-run on a GPU" grep -q '^protocol tiny, float32 on cuda-sm90$' dry.txt
sed 's/^base: taste/base: taste\ndevice: cuda/' tiny.yml > device.yml
"$M" bench --protocol device.yml --store d.db --tasks compression mamba > device.txt 2> /dev/null
check "device: in a protocol" grep -q 'float32, cuda-sm90\.$' device.txt
"$M" bench --protocol device.yml --store d.db --tasks compression --device cpu mamba > over.txt 2> /dev/null
check "--device over the protocol's" grep -qE 'float32, (avx2-fma|plain)\.$' over.txt
MDR_EMU_FAIL_AFTER=2000 "$M" $b --device cuda --set steps=40 mamba 'mlp mlp' > fail.txt 2> fail.err
check "a GPU that fails: exit 1, named" sh -c "test $? -eq 1 && grep -q 'emulated GPU, [0-9] of 4 trials had ended: the GPU failed' fail.err"
"$M" check --precision float32 --json > check.json
check "check --json" sh -c 'grep -q "\"failed\": 0" check.json && grep -q "\"schema\": \"madras.check/1\"" check.json'
"$M" check --precision bf16 > check.txt
check "check" grep -q '^emulated GPU (cuda-sm90) beside the double reference: [1-9][0-9]* passed, 0 failed$' check.txt
check "80 columns" awk 'length($0) > 80 { bad = 1; print } END { exit bad }' devices.txt first.txt
exit $failed
