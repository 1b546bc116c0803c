#!/bin/sh
# madras bench and show: the table, the store, stopping and going on.
. "$(dirname "$0")/cli/cli.sh"
b="bench --protocol tiny.yml --store s.db"
"$MADRAS" $b mamba 'A=mh-attention(n_heads=4) swiglu' > first.txt 2> first.err
check "bench exits 0 and says nothing on standard error" test $? -eq 0 -a ! -s first.err
sed -E 's/[0-9]+\.[0-9]\*?/N/g; s/  +/  /g; s/ *$//; s/ \*: not told apart from chance\.//; s/float32, (avx2-fma|plain)/float32, CLASS/' first.txt > bench.out
golden bench
"$MADRAS" $b mamba 'A=mh-attention(n_heads=4) swiglu' > second.txt 2> second.err
check "the second time nothing runs" grep -qx 'madras: 4 of 4 trials are in s.db' second.err
check "and the table is the same" cmp first.txt second.txt
"$MADRAS" $b --stored mamba 'A=mh-attention(n_heads=4) swiglu' > stored.txt 2> stored.err
check "--stored: the same table, and silence" sh -c 'cmp first.txt stored.txt && test ! -s stored.err'
cp s.db before.db
"$MADRAS" $b --stored mamba hyena > part.txt 2> part.err
check "--stored runs nothing" sh -c 'test $? -eq 0 && cmp s.db before.db && grep -qx "madras: 2 of 4 trials are in s.db" part.err'
check "and says what is missing" sh -c 'grep -q "^hyena  *–  *–" part.txt &&
    tr "\n" " " < part.txt | grep -q "1 of 1 settings of compression were not run and are left out"'
"$MADRAS" $b --stored hyena > none.txt 2> none.err
check "--stored of nothing" sh -c "test $? -eq 2 && test ! -s none.txt && grep -qx 'madras: --stored: none of these 2 trials is in s.db' none.err"
"$MADRAS" bench --protocol tiny.yml --store absent.db --stored mamba > none.txt 2> none.err
check "--stored without a store" sh -c "test $? -eq 2 && grep -q '^madras: absent.db: there is no store yet' none.err && test ! -e absent.db"
"$MADRAS" $b --stored --device cuda mamba > none.txt 2> none.err
check "--stored of a GPU's trials" sh -c "test $? -eq 2 && grep -qx 'madras: --stored: s.db has no trials of a GPU' none.err"
for o in --dry-run '--threads 1'; do
    # shellcheck disable=SC2086
    "$MADRAS" $b --stored $o mamba > none.txt 2> none.err
    check "--stored with $o" sh -c "test $? -eq 2 && grep -q 'does not go with --' none.err"
done
"$MADRAS" $b mamba 'A=mh-attention(n_heads=4) swiglu' --json > bench.json 2> /dev/null
"$MADRAS" $b mamba 'A=mh-attention(n_heads=4) swiglu' --settings > settings.txt 2> /dev/null
check "--settings: the table, then one for each task" sh -c 'n=$(wc -l < first.txt); head -n "$n" settings.txt | cmp - first.txt &&
    tail -n +"$((n + 1))" settings.txt | grep -cE "^baseline( +[0-9]+\.[0-9]){2}$" | grep -qx 2'
# Trials end by no split here: said to end by test, and with the last epoch's perplexity there set high, they are scored at the first.
if command -v python3 > /dev/null; then
    cp s.db other.db
    sql() { python3 -c 'import sqlite3, sys
with sqlite3.connect("other.db") as db: db.executescript(sys.argv[1])' "$1"; }
    sql "update epoch set test_ppl = 1e9 where epoch = 2; update epoch set valid_acc_macro = 0 where epoch = 1"
    "$MADRAS" show --store other.db > valid.txt
    sql "update trial set spec = replace(spec, 'train.early_stop none', 'train.early_stop test')"
    "$MADRAS" show --store other.db > test.txt
    check "show: what is stopped on test is scored there" sh -c '! cmp -s valid.txt test.txt'
    sql "update trial set numerics = 1, key = substr(key, 2) || 'f'"
    "$MADRAS" bench --protocol tiny.yml --store other.db --stored mamba > none.txt 2> none.err
    check "trials of another numerics version get a word" sh -c "test $? -eq 2 &&
        grep -qx \"madras: other.db has 2 trials of numerics version 1; this program's is [0-9]*, and they do not count here\" none.err"
else skip "show: what is stopped on test is scored there: no python3"; fi
if command -v python3 > /dev/null; then
    check "--json" python3 -c 'import json
o = json.load(open("bench.json"))
assert o["schema"] == "madras.bench/1" and o["madras"] and o["protocol"] == "tiny" and len(o["rows"]) == 4
for r in o["rows"]: assert 0 <= r["test_acc_macro"] <= 1 and r["chance_macro"] > 0 and r["ceiling_macro"] == 1 and r["by_setting"][0]["setting"] == "baseline"'
else skip "--json: no python3"; fi
"$MADRAS" $b --layers mamba > layers.txt 2> layers.err
check "--layers finds the same trials" grep -q '^madras: 2 of 2' layers.err
"$MADRAS" $b --tasks compression --seeds 3 mamba > seeds.txt 2> seeds.err
check "--seeds reuses the first" grep -q '^madras: 1 of 3' seeds.err
"$MADRAS" bench --protocol mad-lab --dry-run --store s.db '(mh-attention swiglu)*2' > dry.txt
check "mad-lab is 396 trials" grep -q '^  396 trials, 0 of them in the store' dry.txt
"$MADRAS" bench --protocol tiny.yml --store s.db --dry-run --json mamba hyena > dry.json
check "--dry-run --json" sh -c 'test "$(grep -c "\"stored\": 2" dry.json)" -eq 1 -a "$(grep -c "\"stored\": 0" dry.json)" -eq 1'
"$MADRAS" $b mamba mamba 'mamba(d_state=2|2)' > twice.txt 2>&1
check "an architecture twice" test $? -eq 0

# show
"$MADRAS" show --store s.db --all > all.txt
check "show --all: every trial" test "$(wc -l < all.txt)" -eq "$("$MADRAS" show --store s.db --csv | sed 1d | wc -l)" -a "$(wc -l < all.txt)" -ge 6
"$MADRAS" show --store s.db --csv > show.csv
head -1 show.csv > csv-header.out
golden csv-header
check "show --csv: each row's spec is one cell of one line" test "$(grep -cE ',"architecture [^"]*; task\.seq_len [0-9]+; .*; composed 0"$' show.csv)" -eq \
    "$(sed 1d show.csv | wc -l)"
key=$(sed -n '2s/,.*//p' show.csv)
"$MADRAS" show --store s.db "$(echo "$key" | cut -c1-10)" > one.txt
mask < one.txt | sed -E 's/^done, .* UTC/done, DATE/; s/  <$//' > show-one.out
golden show-one
"$MADRAS" show --store s.db --json > show.json
check "show --json: its head" sh -c 'grep -q "^ \"schema\": \"madras.show/1\",$" show.json && grep -q "^ \"protocol\": null,$" show.json'
check "show --json: perplexities" test "$(grep -cE '"(valid|test)_ppl": [0-9]' show.json)" -ge 6
check "show --json: every key" test "$(grep -c '"key":' show.json)" -eq "$(sed 1d show.csv | wc -l)"
cp s.db copy.db
chmod a-w copy.db
check "a store that cannot be written to is read" "$MADRAS" show --store copy.db
MADRAS_STORE=s.db "$MADRAS" show --all > env.txt
check "MADRAS_STORE" cmp env.txt all.txt
XDG_STATE_HOME="$PWD/state" "$MADRAS" bench --protocol tiny.yml --tasks compression mamba > xdg.txt 2>&1
check "XDG_STATE_HOME" test -s state/madras/trials.db
"$MADRAS" bench --protocol tiny.yml --tasks compression mamba > home.txt 2>&1
check "HOME" test -s "$HOME/.local/state/madras/trials.db"

# Stopped: what was finished stays, the same command goes on.
long="bench --protocol tiny.yml --store stop.db --set steps=1500 --seeds 8 --tasks compression mamba"
"$MADRAS" $long > stop.txt 2> stop.err &
pid=$!
n=0
while [ $n -lt 400 ] && [ "$("$MADRAS" show --all --store stop.db 2> /dev/null | grep -c '^[0-9a-f]')" -lt 1 ]; do sleep 0.05; n=$((n + 1)); done
kill -TERM $pid
wait $pid
rc=$?
kept=$("$MADRAS" show --all --store stop.db | grep -c '^[0-9a-f]')
check "a stop asked for exits 130" test $rc -eq 130
check "it says how to go on" grep -q '^madras: stopped; every finished trial is in stop.db and the same command goes on from there' stop.err
check "it keeps what was finished" test "$kept" -ge 1 -a "$kept" -lt 8
"$MADRAS" bench --protocol tiny.yml --store stop.db --set steps=1500 --seeds 8 --tasks compression --dry-run mamba > left.txt
check "and would go on" grep -q "^  8 trials, $kept of them in the store" left.txt
if command -v python3 > /dev/null; then
    rm -f int.db
    python3 - > int.txt 2>&1 <<'P'
import os, signal, subprocess, time
words = "bench --protocol tiny.yml --store int.db --set steps=150000 --tasks compression mamba".split()
p = subprocess.Popen([os.environ["MADRAS"]] + words, stderr=subprocess.PIPE)
time.sleep(1)
p.send_signal(signal.SIGINT)
_, err = p.communicate(timeout=60)
assert p.returncode == 130 and b"stopped" in err, (p.returncode, err)
P
    check "Ctrl-C exits 130" test $? -eq 0
else skip "Ctrl-C: no python3"; fi
exit $failed
