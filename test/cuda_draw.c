/* Batches drawn on a (here emulated) GPU are the CPU's bytes, whatever tasks, splits, orders and lengths share a launch; the scores of an
 * evaluation are the CPU's bits. */
#include "exec/accel.h"
#include "task_harness.h"
#include "train/device_metrics.h"
#include "train/internal.h"

typedef struct Setting { const char *name, *word[7]; } Setting;
/* Groups of equal numbers of rows: each is one launch of all its settings and splits. */
typedef struct Group { int32_t rows, batch, rounds; Setting setting[12]; } Group;

static const Group groups[] = {
    {128, 48, 5,
     {{"compression", {"seq_len=128"}},
      {"compression", {"seq_len=128", "vocab_size=2"}},
      {"memorization", {"seq_len=128", "vocab_size=8192"}},
      {"memorization", {"seq_len=129", "vocab_size=4"}},
      {"selective-copying", {"seq_len=128", "vocab_size=128"}},
      {"selective-copying", {"seq_len=128", "num_tokens_to_copy=63", "vocab_size=3"}},
      {"in-context-recall", {"multi_query=false"}},
      {"noisy-in-context-recall", {"multi_query=false", "frac_noise=0.8", "noise_vocab_size=1"}},
      {"fuzzy-in-context-recall", {"vocab_size=16"}},
      {"fuzzy-in-context-recall", {"vocab_size=64", "multi_query=false", "k_motif_size=8", "v_motif_size=8", "fuzzy_in_loop=false"}}}},
    {127, 48, 5,
     {{"compression", {"seq_len=127", "vocab_size=65536"}},
      {"selective-copying", {"seq_len=127", "num_tokens_to_copy=1"}},
      {"in-context-recall", {"seq_len=128"}},
      {"in-context-recall", {"seq_len=128", "vocab_size=5000"}},
      {"noisy-in-context-recall", {"seq_len=128"}},
      {"noisy-in-context-recall", {"seq_len=128", "frac_noise=0"}},
      {"fuzzy-in-context-recall", {"seq_len=127", "multi_query=false", "vocab_size=9"}},
      {"fuzzy-in-context-recall", {"seq_len=127", "k_motif_size=1", "v_motif_size=1", "vocab_size=300"}}}},
    /* the smallest; with so much noise half of the draws begin anew */
    {3, 10, 20,
     {{"compression", {"seq_len=3"}},
      {"in-context-recall", {"seq_len=4", "vocab_size=2"}},
      {"noisy-in-context-recall", {"seq_len=4", "frac_noise=0.99"}}}},
    {5, 10, 20,
     {{"selective-copying", {"seq_len=5", "num_tokens_to_copy=1", "vocab_size=3"}},
      {"in-context-recall", {"seq_len=6"}},
      {"fuzzy-in-context-recall", {"seq_len=5", "k_motif_size=1", "v_motif_size=1", "vocab_size=3"}}}},
    {1279, 9, 2,
     {{"compression", {"seq_len=1279"}},
      {"in-context-recall", {"seq_len=1280", "vocab_size=256"}},
      {"fuzzy-in-context-recall", {"seq_len=1279", "vocab_size=128"}}}},
    /* too long for shared memory */
    {4000, 9, 1,
     {{"compression", {"seq_len=4000"}},
      {"memorization", {"seq_len=4000"}},
      {"selective-copying", {"seq_len=4000", "num_tokens_to_copy=999"}},
      {"in-context-recall", {"seq_len=4000", "multi_query=false", "vocab_size=65536"}},
      {"noisy-in-context-recall", {"seq_len=4000", "multi_query=false", "frac_noise=0.5"}},
      {"fuzzy-in-context-recall", {"seq_len=4000", "vocab_size=200"}}}}};

enum { MOST = 40, UNTOUCHED = -77 };

typedef struct Slot { Dataset *data; int32_t *order; void *device_ctx, *device_order; } Slot;
typedef struct Launch {
    Accel *accel;
    const Group *group;
    int32_t n;
    Slot member[MOST];
    int64_t cells;                        /* of tokens                                                                   */
    int32_t *host;                        /* tokens, targets                                                             */
    int32_t first[MOST], n_seq[MOST];
    DrawMember *members;
    int32_t *device_first, *device_n_seq, *drawn, *device, *work;
    float *inv_count;
} Launch;

static void *on_device(Accel *a, const void *host, int64_t bytes)
{
    void *p;
    must(mdr_accel_alloc(a, bytes, &p));
    if (host) must(mdr_accel_upload(a, p, host, bytes));
    return p;
}

/* An order for two of three members, the reverse of nearly all examples; the device gets its own copies. */
static DrawMember open_member(Launch *l, Slot *m, const Setting *s, Split split)
{
    TaskParams p;
    DrawMember d;
    const TaskDef *t = setting(&p, s->name, s->word);
    p.num_train_examples = p.num_test_examples = 1000;
    must(mdr_task_open(t, &p, split, SEED + (uint64_t)l->n, &m->data));
    assert_int_equal(mdr_task_rows(m->data), l->group->rows);
    int64_t room = mdr_cuda_draw_work(1, 1, l->group->rows) / 4 - 1;
    if (t->work && room) assert_true(t->work(&p) <= room);   /* 0: in shared memory, where an overrun would show in the bytes */
    int64_t bytes;
    const void *ctx = mdr_task_ctx(m->data, &bytes);
    m->device_ctx = bytes ? on_device(l->accel, ctx, bytes) : NULL;
    if (l->n % 3) {
        m->order = malloc(1000 * sizeof *m->order);
        for (int32_t i = 0; i < 1000; i++) m->order[i] = (999 - i) ^ 4;
        m->device_order = on_device(l->accel, m->order, 1000 * (int64_t)sizeof *m->order);
    }
    memset(&d, 0xee, sizeof d);
    mdr_task_draw_member(m->data, m->device_ctx, m->device_order, &d);
    l->n++;
    return d;
}

static void launch_open(Launch *l, Accel *accel, const Group *g)
{
    DrawMember members[MOST];
    *l = (Launch){.accel = accel, .group = g};
    for (int32_t i = 0; i < MDR_COUNT(g->setting) && g->setting[i].name; i++)
        for (int32_t split = 0; split < SPLIT_COUNT; split++) {
            assert_true(l->n < MOST);
            members[l->n] = open_member(l, &l->member[l->n], &g->setting[i], (Split)split);
        }
    l->cells = (int64_t)l->n * g->batch * g->rows;
    l->host = malloc(2 * (size_t)l->cells * sizeof *l->host);
    l->members = on_device(accel, members, l->n * (int64_t)sizeof *members);
    l->device = on_device(accel, NULL, 2 * l->cells * 4);
    l->device_first = on_device(accel, NULL, 4 * l->n);
    l->device_n_seq = on_device(accel, NULL, 4 * l->n);
    l->inv_count = on_device(accel, NULL, 4 * l->n);
    l->drawn = on_device(accel, NULL, 4 * l->n);
    l->work = on_device(accel, NULL, mdr_cuda_draw_work(l->n, g->batch, g->rows));
}

static void launch_close(Launch *l)
{
    void *const device[] = {l->members, l->device, l->device_first, l->device_n_seq, l->drawn, l->inv_count, l->work};
    for (int32_t i = 0; i < MDR_COUNT(device); i++) mdr_accel_free(l->accel, device[i]);
    for (int32_t m = 0; m < l->n; m++) {
        mdr_task_close(l->member[m].data);
        free(l->member[m].order);
        mdr_accel_free(l->accel, l->member[m].device_ctx);
        mdr_accel_free(l->accel, l->member[m].device_order);
    }
    free(l->host);
}

/* What member m got is what the CPU draws; the rest of its room is as it was. */
static int32_t check_member(const Launch *l, int32_t m, float inv_count)
{
    int32_t rows = l->group->rows, batch = l->group->batch, wanted = 0;
    int32_t *tokens = malloc((size_t)rows * 4), *targets = malloc((size_t)rows * 4);
    for (int32_t k = 0; k < batch; k++) {
        const int32_t *got = l->host + ((int64_t)m * batch + k) * rows, *got_targets = got + l->cells;
        int32_t at = l->first[m] + k;
        if (k < l->n_seq[m]) mdr_task_example(l->member[m].data, l->member[m].order ? l->member[m].order[at] : at, tokens, targets);
        for (int32_t t = 0; t < rows && k >= l->n_seq[m]; t++) tokens[t] = targets[t] = UNTOUCHED;
        if (memcmp(tokens, got, (size_t)rows * 4) || memcmp(targets, got_targets, (size_t)rows * 4))
            fail_msg("%d rows, member %d, sequence %d of %d differs", rows, m, k, l->n_seq[m]);
        for (int32_t t = 0; t < rows; t++) wanted += targets[t] >= 0;
    }
    float expected = wanted ? (float)(1.0 / (double)wanted) : 0.0f;
    assert_memory_equal(&inv_count, &expected, sizeof expected);
    free(tokens), free(targets);
    return l->n_seq[m];
}

static void batches(void **state)
{
    Accel *accel = *state;
    static Launch l;
    for (int32_t g = 0; g < MDR_COUNT(groups); g++) {
        launch_open(&l, accel, &groups[g]);
        int32_t batch = groups[g].batch, examples = 0;
        for (int32_t round = 0; round < groups[g].rounds; round++) {
            for (int32_t m = 0; m < l.n; m++) {   /* whole, short and empty batches; two begin at 0, the others anywhere */
                l.first[m] = m < 2 ? 0 : (m * 37 + round * 111) % (1000 - batch);
                l.n_seq[m] = (m + round) % 4 < 2 ? batch : (m * 5 + round * 3) % (batch + 1) * ((m + round) % 4 - 2);
            }
            for (int64_t i = 0; i < 2 * l.cells; i++) l.host[i] = UNTOUCHED;
            must(mdr_accel_upload(accel, l.device, l.host, 2 * l.cells * 4));
            must(mdr_accel_upload(accel, l.device_first, l.first, 4 * l.n));
            must(mdr_accel_upload(accel, l.device_n_seq, l.n_seq, 4 * l.n));
            mdr_cuda_draw(mdr_accel_stream(accel), l.n, batch, groups[g].rows, l.members, l.device_first, l.device_n_seq,
                          (DrawBatch){l.device, l.device + l.cells, l.inv_count, l.drawn}, l.work);
            float inv_count[MOST];
            int32_t drawn[MOST];
            must(mdr_accel_sync(accel));
            must(mdr_accel_download(accel, l.host, l.device, 2 * l.cells * 4));
            must(mdr_accel_download(accel, inv_count, l.inv_count, 4 * l.n));
            must(mdr_accel_download(accel, drawn, l.drawn, 4 * l.n));
            assert_memory_equal(drawn, l.n_seq, 4 * (size_t)l.n);
            for (int32_t m = 0; m < l.n; m++) examples += check_member(&l, m, inv_count[m]);
        }
        print_message("# %d rows: %d members, %d sequences\n", groups[g].rows, l.n, examples);
        launch_close(&l);
    }
}

/* Counts of an untrained, a good and an odd model: classes never wanted, never predicted, nothing wanted at all. */
static void random_counts(Rng *r, int32_t member, int32_t vocab, double *wanted, double *predicted, double *hit)
{
    for (int32_t c = 0; c < vocab; c++) {
        wanted[c] = member % 5 == 4 ? 0 : mdr_rng_below(r, 4) ? mdr_rng_below(r, 1000) : 0;
        predicted[c] = mdr_rng_below(r, 3) ? mdr_rng_below(r, 1000) : 0;
        hit[c] = member % 5 ? mdr_rng_below(r, 1 + (uint32_t)fmin(wanted[c], predicted[c])) : wanted[c];
    }
}

enum { SCORED = 11, CLASSES = 700, APART = 3 * CLASSES + 5 };
static void scores(void **state)
{
    Accel *accel = *state;
    static double counts[SCORED][APART], loss[SCORED][2], own[3 * CLASSES];
    int64_t size[SCORED];
    int32_t vocab[SCORED], n_seq[SCORED];
    SplitScore cpu[2][SCORED] = {0}, gpu[SCORED];
    Rng r = mdr_rng(SEED, 1);
    print_message("# seed %d\n", SEED);
    void *device_score[2] = {on_device(accel, cpu, sizeof gpu), on_device(accel, cpu, sizeof gpu)}, *device_size, *device_vocab;
    for (int32_t m = 0; m < SCORED; m++) size[m] = 1 + mdr_rng_below(&r, 3000), vocab[m] = m == 3 ? CLASSES : 1 + (int32_t)mdr_rng_below(&r, CLASSES);
    device_size = on_device(accel, size, sizeof size), device_vocab = on_device(accel, vocab, sizeof vocab);
    void *device_n_seq = on_device(accel, NULL, sizeof n_seq), *device_loss = on_device(accel, NULL, sizeof loss);
    void *device_counts = on_device(accel, NULL, sizeof counts);
    for (int32_t batch = 0; batch < 30; batch++) {
        for (int32_t m = 0; m < SCORED; m++) {
            n_seq[m] = mdr_rng_below(&r, 4) ? 1 + (int32_t)mdr_rng_below(&r, 128) : 0;
            loss[m][0] = (m == 7 ? 900 : 9) * mdr_rng_unit(&r), loss[m][1] = NAN;
            random_counts(&r, m, CLASSES, counts[m], counts[m] + CLASSES, counts[m] + 2 * CLASSES);
            if (n_seq[m] == 0) continue;
            mdr_train_score(counts[m], CLASSES, loss[m][0], n_seq[m], size[m], &cpu[0][m]);
            for (int32_t i = 0; i < 3 * vocab[m]; i++) own[i] = counts[m][i / vocab[m] * CLASSES + i % vocab[m]];
            mdr_train_score(own, vocab[m], loss[m][0], n_seq[m], size[m], &cpu[1][m]);
        }
        must(mdr_accel_upload(accel, device_n_seq, n_seq, sizeof n_seq));
        must(mdr_accel_upload(accel, device_loss, loss, sizeof loss));
        must(mdr_accel_upload(accel, device_counts, counts, sizeof counts));
        for (int32_t way = 0; way < 2; way++)
            mdr_cuda_score(mdr_accel_stream(accel), SCORED, device_n_seq, CLASSES, way ? device_vocab : NULL, device_loss, 2, device_counts, APART,
                           device_size, device_score[way]);
    }
    for (int32_t way = 0; way < 2; way++) {
        must(mdr_accel_download(accel, gpu, device_score[way], sizeof gpu));
        assert_memory_equal(gpu, cpu[way], sizeof gpu);
    }
    assert_true(cpu[0][0].acc > 0 && cpu[0][0].acc_macro > 0 && cpu[0][0].ppl > 1 && cpu[0][4].acc == 0);
    void *const device[] = {device_score[0], device_score[1], device_size, device_vocab, device_n_seq, device_loss, device_counts};
    for (int32_t i = 0; i < MDR_COUNT(device); i++) mdr_accel_free(accel, device[i]);
}

/* One batch by hand. */
static void known_score(void **state)
{
    (void)state;
    static const double counts[3 * 4] = {4, 2, 0, 0, 3, 2, 1, 0, 3, 1, 0, 0};
    SplitScore s = {0.5, 0, 0, 0};
    mdr_train_score(counts, 4, 2.0, 32, 128, &s);
    assert_true(s.loss == 0.5 + 0.25 * 2.0);
    assert_true(fabs(s.ppl - 0.25 * exp(2.0)) < 1e-14);
    assert_true(s.acc == 0.25 * (4.0 / 6));
    assert_true(s.acc_macro == 0.25 * ((0.75 + 0.5) / 3));   /* the third class was predicted, the fourth never met */
}

static int open_accel(void **state)
{
    Accel *a;
    must(mdr_accel_open(0, &a));
    *state = a;
    return 0;
}

static int close_accel(void **state)
{
    mdr_accel_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(batches), cmocka_unit_test(scores), cmocka_unit_test(known_score)};
    return cmocka_run_group_tests(tests, open_accel, close_accel);
}
