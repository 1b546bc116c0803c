/* A trial's state in a file, so that the same command continues to the same bits.
 *
 * Layout:  "MADRASCP" | u32 format | u32 members | u64 step | f64 seconds | per member: 64 hex of its key, u32 training,
 *          u32 status, f64 loss, f64 epoch_loss, u32 epochs, EpochScore[epochs] | param, m, v (float, [members][stride]) |
 *          64 hex of the SHA-256 of all before.
 * Invariants: 1. the file is complete or absent (temporary file, fsync, rename). 2. Nothing of the trainer changes unless the
 * whole file was read, its sum is right and every key matches. 3. A file of another spec, numerics version or class is refused
 * by the keys, never guessed at. */
#include "train/internal.h"
#include <string.h>
#include <unistd.h>

enum { FORMAT = 2 };
static const char MAGIC[8] = {'M', 'A', 'D', 'R', 'A', 'S', 'C', 'P'};

static void put(Text *t, const void *p, size_t n) { mdr_text_add(t, p, n); }

Err *mdr_train_save(const Trainer *t, const char *path)
{
    Text out = {0};
    uint32_t head[2] = {FORMAT, (uint32_t)t->n};
    double elapsed = t->clock_before + mdr_clock() - t->clock_start;
    put(&out, MAGIC, sizeof MAGIC);
    put(&out, head, sizeof head);
    put(&out, &t->walk.step, 8);
    put(&out, &elapsed, 8);
    for (int32_t m = 0; m < t->n; m++) {
        const Member *x = &t->member[m];
        char key[65];
        uint32_t word[3] = {x->training, (uint32_t)x->result.status, (uint32_t)x->result.n_epoch};
        double loss[3] = {x->loss, x->epoch_loss, x->result.seconds};
        mdr_train_key(x->spec, key);
        put(&out, key, 64);
        put(&out, word, sizeof word);
        put(&out, loss, sizeof loss);
        if (x->result.n_epoch) put(&out, x->result.epoch, (size_t)x->result.n_epoch * sizeof *x->result.epoch);
    }
    size_t bytes = (size_t)(t->pop->n * t->pop->stride * t->pop->real_size);
    put(&out, t->pop->param, bytes);
    put(&out, t->pop->m, bytes);
    put(&out, t->pop->v, bytes);
    char sum[65];
    mdr_sha256(out.s, out.n, sum);
    put(&out, sum, 64);
    Err *e = mdr_file_write_atomic(path, out.s, out.n);
    mdr_text_free(&out);
    return mdr_err_wrap(e, "checkpoint");             /* whose path the message has                                         */
}

typedef struct Reader { const char *at, *end; bool short_read; } Reader;
static const void *take(Reader *r, size_t n)
{
    if ((size_t)(r->end - r->at) < n) { r->short_read = true; return NULL; }
    const void *p = r->at;
    r->at += n;
    return p;
}

typedef struct Loaded { uint32_t training, status, n_epoch; double loss[3]; const char *epochs; } Loaded;

static Err *read_members(const Trainer *t, Reader *r, Loaded *in)
{
    for (int32_t m = 0; m < t->n; m++) {
        char key[65];
        mdr_train_key(t->member[m].spec, key);
        const char *stored = take(r, 64);
        if (stored && memcmp(stored, key, 64) != 0)
            return MDR_ERR_USER("it holds another trial (key %.12s, this one is %.12s): other settings, version or processor class", stored, key);
        const void *word = take(r, 12), *loss = take(r, 24);
        if (r->short_read) return NULL;
        memcpy(&in[m], word, 12);
        memcpy(in[m].loss, loss, 24);
        if (in[m].n_epoch > (uint32_t)1 << 28 || in[m].status > TRIAL_STOPPED_EARLY || in[m].training > 1) { r->short_read = true; return NULL; }
        in[m].epochs = take(r, in[m].n_epoch * sizeof(EpochScore));
    }
    return NULL;
}

static Err *load(Trainer *t, const char *text, size_t n)
{
    Reader r = {text, text + n, false};
    char sum[65];
    if (n < 96 || memcmp(text, MAGIC, 8) != 0) return MDR_ERR_USER("it is not a checkpoint of madras");
    mdr_sha256(text, n - 64, sum);
    if (memcmp(sum, text + n - 64, 64) != 0) return MDR_ERR_USER("it is damaged or cut short (its checksum does not match)");
    r.end -= 64;
    take(&r, 8);
    const void *h = take(&r, 8), *s = take(&r, 8), *c = take(&r, 8);
    uint32_t head[2];
    int64_t step;
    double elapsed;
    memcpy(head, h, 8);
    memcpy(&step, s, 8);
    memcpy(&elapsed, c, 8);
    if (head[0] != FORMAT) return MDR_ERR_USER("it is of format %u, this version reads %d", head[0], FORMAT);
    if (head[1] != (uint32_t)t->n) return MDR_ERR_USER("it holds %u trials, this run has %d", head[1], t->n);
    Loaded *in = mdr_alloc((size_t)t->n * sizeof *in);
    Err *e = read_members(t, &r, in);
    size_t bytes = (size_t)(t->pop->n * t->pop->stride * t->pop->real_size);
    const void *part[3] = {e ? NULL : take(&r, bytes), e ? NULL : take(&r, bytes), e ? NULL : take(&r, bytes)};
    if (!e && (r.short_read || r.at != r.end || step < 0 || step > t->walk.total)) e = MDR_ERR_USER("its contents do not fit together");
    if (!e) {
        memcpy(t->pop->param, part[0], bytes);
        memcpy(t->pop->m, part[1], bytes);
        memcpy(t->pop->v, part[2], bytes);
        t->walk.step = step;
        t->clock_before = elapsed;
        t->clock_start = mdr_clock();
    }
    for (int32_t m = 0; !e && m < t->n; m++) {
        Member *x = &t->member[m];
        mdr_train_result_free(&x->result);
        x->training = t->pop->alive[m] = in[m].training != 0;
        x->loss = in[m].loss[0];
        x->epoch_loss = in[m].loss[1];
        x->result = (TrialResult){(TrialStatus)in[m].status, (int32_t)in[m].n_epoch, NULL, in[m].loss[2]};
        x->result.epoch = mdr_alloc(in[m].n_epoch * sizeof(EpochScore) + 1);
        if (in[m].n_epoch) memcpy(x->result.epoch, in[m].epochs, in[m].n_epoch * sizeof(EpochScore));
    }
    mdr_free(in);
    return e;
}

Err *mdr_train_load(Trainer *t, const char *path)
{
    char *text = NULL;
    size_t n = 0;
    MDR_TRY(mdr_err_wrap(mdr_file_read(path, (size_t)1 << 36, &text, &n), "checkpoint"));
    Err *e = load(t, text, n);
    mdr_free(text);
    return mdr_err_wrap(e, "checkpoint %s", path);
}

static Err *stop(const Trainer *t, const TrainWatch *w)
{
    if (!w->checkpoint) return mdr_err_new(MDR_STOPPED, __FILE__, __LINE__, "stopped");
    MDR_TRY(mdr_train_save(t, w->checkpoint));
    return mdr_err_new(MDR_STOPPED, __FILE__, __LINE__, "stopped; the same command goes on from %s", w->checkpoint);
}

Err *mdr_train_run(Trainer *t, const TrainWatch *w)
{
    if (w->checkpoint && access(w->checkpoint, F_OK) == 0) MDR_TRY(mdr_train_load(t, w->checkpoint));
    while (!mdr_train_finished(t)) {
        MDR_TRY(mdr_train_step(t));
        if (mdr_train_epoch_ends(t) && !mdr_train_finished(t)) {
            MDR_TRY(mdr_train_evaluate(t));
            if (w->epoch) w->epoch(w->ctx, t);
            if (w->checkpoint && !w->every) MDR_TRY(mdr_train_save(t, w->checkpoint));
        }
        if (w->checkpoint && w->every && t->walk.step % w->every == 0) MDR_TRY(mdr_train_save(t, w->checkpoint));
        if (w->step && !w->step(w->ctx, t) && !mdr_train_finished(t)) return stop(t, w);
    }
    return w->checkpoint ? mdr_train_save(t, w->checkpoint) : NULL;        /* finished, whatever --every said               */
}
