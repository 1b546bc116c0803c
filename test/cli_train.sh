#!/bin/sh
# madras train and data: text, JSON, checkpoints, traces, numpy files.
. "$(dirname "$0")/cli/cli.sh"
t="--task in-context-recall --arch mamba $small"
"$MADRAS" train $t > train.txt 2> train.err
check "train exits 0 and says nothing on standard error" test $? -eq 0 -a ! -s train.err
mask < train.txt | sed 's/epoch [0-9]* is the best/epoch E is the best/' > train.out
golden train
"$MADRAS" train $t --json > a.json
sed -E 's/"([a-z_]+)":[^"{]*[0-9.]+([,}])/"\1":N\2/g' a.json | mask > train-json.out
golden train-json
if command -v python3 > /dev/null; then
    check "every line is JSON" python3 -c 'import json
e = [json.loads(l)["event"] for l in open("a.json")]
assert e == ["start", "epoch", "epoch", "epoch", "end"], e'
else skip "JSON: no python3"; fi
"$MADRAS" train $t --json --set lr=10 --set weight_decay=10 --set optimizer=sgd > div.json
nulls='"epoch":null,"step":null,"train_loss":null,"valid_loss":null,"valid_ppl":null,.*"test_ppl":null'
check "a diverged trial's end has every key" test "$(grep -c '"event":"end","status":"diverged",'"$nulls" div.json)" -eq 1
timeless a.json > a
same() { "$MADRAS" train --json "$@" 2> b.err | sed -E 's/"seconds":[^,}]*//' > b; cmp a b; }
check "the same again" same $t
check "one thread" same $t --threads 1
check "more threads than processors" same $t --threads 9
check "--layers" same --task in-context-recall --layers mamba $small
check "--option=value" same --task=in-context-recall --arch=mamba $small
cat > config.yml <<'Y'
tasks: {in-context-recall: {baseline: {vocab_size: 8, seq_len: 16, num_train_examples: 64, num_test_examples: 32}}}
model: {dim: 16}
train: {epochs: 3, batch_size: 16, lr: 2e-3}
Y
check "--config says the same as --set" same --task in-context-recall --arch mamba --config config.yml
printf 'base: madras\n' > p.yml
cat config.yml >> p.yml
check "so does a protocol" same --task in-context-recall --arch mamba --protocol p.yml
check "another seed is another trial" sh -c '! cmp -s a b' "$("$MADRAS" train $t --json --seed 2 | sed -E 's/"seconds":[^,}]*//' > b)"
"$MADRAS" train $t --composed --json > c.json
check "--composed is a trial of its own" test -n "$(field c.json test_loss)" -a "$(field c.json key)" != "$(field a.json key)"
near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; exit !(d < 1e-3 && d > -1e-3) }'; }
check "--composed agrees" near "$(field c.json test_loss)" "$(field a.json test_loss)"

# A checkpoint: stopped and continued is the same as straight on.
"$MADRAS" train $t --set epochs=400 --json > long.json
timeless long.json | tail -1 > straight
"$MADRAS" train $t --set epochs=400 --json --checkpoint c.bin --every 7 > /dev/null 2> stop.err &
pid=$!
n=0
while [ ! -s c.bin ] && [ $n -lt 200 ]; do sleep 0.05; n=$((n + 1)); done
kill -TERM $pid                                       # sh gives its background jobs no SIGINT
wait $pid
rc=$?
if [ $rc -eq 0 ]; then skip "stopping: the trial was faster"; else
    check "a stop asked for exits 130 with a sentence" sh -c "test $rc -eq 130 && grep -q '^madras: stopped; the same command goes on from c.bin' stop.err"
fi
"$MADRAS" train $t --set epochs=400 --json --checkpoint c.bin --every 7 | sed -E 's/"seconds":[^,}]*//' | tail -1 > continued
check "continued equals straight" cmp straight continued
"$MADRAS" train $t --set epochs=400 --json --checkpoint c.bin | sed -E 's/"seconds":[^,}]*//' | tail -1 > continued
check "a finished checkpoint gives the result again" cmp straight continued

# The protocol's first seed; --seed goes over it.
printf 'base: madras\nseeds: [5, 3]\n' > seeds.yml
"$MADRAS" train $t --json --protocol seeds.yml > five.json
"$MADRAS" train $t --json --seed 5 > seed5.json
check "a protocol with several seeds trains its first" test -n "$(field five.json key)" -a "$(field five.json key)" = "$(field seed5.json key)"
"$MADRAS" train $t --protocol mad-lab > mad-lab.txt
check "mad-lab's seed" grep -q '^in-context-recall, seed 12345: ' mad-lab.txt

# What a layer became.
"$MADRAS" train --task in-context-recall --arch mlp --set dim=16 --plan > plan.txt 2> plan.err
check "--plan exits 0 and says nothing on standard error" test $? -eq 0 -a ! -s plan.err
sed -E '/\(prepare\)/d; s/avx2-fma$|plain$/CLASS/; s/[0-9]+/N/g; s/  +/  /g; s/ +$//' plan.txt > train-plan.out
golden train-plan
check "--plan has an instruction for every op" sh -c 'test "$(grep -c "  (layer 1 mlp)$" plan.txt)" -gt 15'

check "--trace" "$MADRAS" train $t --trace trace.json
if command -v python3 > /dev/null; then
    check "the trace is JSON with events" python3 -c 'import json
e = json.load(open("trace.json"))["traceEvents"]
done = [x for x in e if x["ph"] == "X"]
assert all(x["dur"] >= 0 for x in done) and {x["pid"] for x in done} == {0, 1}
assert {"data", "fold", "update"} <= {x["name"] for x in done if x["pid"] == 0}'
else skip "trace: no python3"; fi

# Data.
d="data --task selective-copying --set vocab_size=8 --set seq_len=16 --set num_tokens_to_copy=3 --set num_train_examples=40 --set num_test_examples=20"
"$MADRAS" $d --show 2 > data-show.out
golden data-show
"$MADRAS" $d --show 1 --protocol mad-lab > mad-lab.out
"$MADRAS" $d --show 1 --protocol mad-lab --seed 12345 > seed.out
check "data: the protocol's seed" sh -c 'cmp mad-lab.out seed.out && ! cmp -s mad-lab.out data-show.out'
"$MADRAS" $d --out "a folder" > data.txt 2>&1
check "--out is silent" test $? -eq 0 -a ! -s data.txt
npy() {                                              # npy FILE N ROWS: magic, version, header, size
    [ "$(od -An -tx1 -N10 "$1" | tr -d ' \n')" = 934e554d505901007600 ] || return 1
    head -c 128 "$1" | tail -c 118 | tr -d '\n' | sed 's/ *$//' > header
    [ "$(cat header)" = "{'descr': '<i8', 'fortran_order': False, 'shape': ($2, $3), }" ] || { cat header; return 1; }
    [ "$(wc -c < "$1")" -eq $((128 + 8 * $2 * $3)) ]
}
check "train/inputs.npy" npy "a folder/train/inputs.npy" 40 16
check "valid/inputs.npy" npy "a folder/valid/inputs.npy" 20 16
check "test/targets.npy" npy "a folder/test/targets.npy" 20 16
# The last 3 targets of the first test sequence are those that --show prints (s0 ... are tokens 0 ...).
od -An -v -td8 -j128 -N128 "a folder/test/targets.npy" | tr -s ' \n' '  ' | sed 's/^ //; s/ $//' > targets
"$MADRAS" $d --show 1 | sed -n 's/.* out//p' | tr -s ' \n' '  ' | sed 's/^ //; s/ $//' > shown
check "--out and --show agree" sh -c 'test "$(tr " " "\n" < targets | sed "s/^-100$/-/" | tr -d "\n")" = "$(tr " " "\n" < shown | tr -d "a-z\n")"'
if python3 -c 'import numpy' 2> /dev/null; then
    check "numpy reads it" python3 -c 'import numpy; x = numpy.load("a folder/train/targets.npy"); assert x.shape == (40, 16) and (x == -100).any()'
else skip "numpy reads it: no numpy"; fi
exit $failed
