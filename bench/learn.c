/* Does it learn? Steps and minutes of (mh-attention swiglu)*2 to a test accuracy of 0.99 on in-context recall (V 16, L 64, dense
 * targets, width 128, batch 128, 12,800 examples; two rates, three seeds), and what swiglu*4, which cannot mix tokens, reaches
 * beside its chance after 1,000 steps.
 *
 *   build/bench/learn [threads [most steps]] */
#include "train/train.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static TrialSpec recall(const Arch *arch, double lr, uint64_t seed, int32_t steps)
{
    TrialSpec s = {.arch = arch, .task = mdr_task_find("in-context-recall"), .seed = seed};
    mdr_task_defaults(s.task, &s.setting);
    mdr_params_default(mdr_model_params, &s.model);
    mdr_params_default(mdr_train_params, &s.train);
    s.model.backbone = BACKBONE_LM;
    s.setting.seq_len = 64;
    s.train.lr = lr;
    s.train.steps = steps;
    s.train.early_stop = STOP_NONE;
    return s;
}

static Err *attention(Pool *pool, int32_t steps)
{
    static const double rate[] = {1e-3, 2e-3};
    ArchList a = {0};
    MDR_TRY(mdr_model_parse("(mh-attention swiglu)*2", 0, NULL, &a));
    printf("(mh-attention swiglu)*2, recall V 16 L 64, to test accuracy 0.99 (plain), evaluated every 100 steps\n");
    printf("%8s %5s %7s %9s %9s\n", "rate", "seed", "steps", "minutes", "accuracy");
    fflush(stdout);
    for (int r = 0; r < MDR_COUNT(rate); r++)
        for (uint64_t seed = 1; seed <= 3; seed++) {
            TrialSpec s = recall(a.arch[0], rate[r], seed, steps);
            const TrialSpec *spec = &s;
            Trainer *t = NULL;
            double begin = mdr_clock(), acc = 0;
            MDR_TRY(mdr_train_open(&spec, 1, pool, &t));
            while (!mdr_train_finished(t) && acc < 0.99) {
                MDR_TRY(mdr_train_step(t));
                if (!mdr_train_epoch_ends(t)) continue;
                MDR_TRY(mdr_train_evaluate(t));
                const TrialResult *x = mdr_train_result(t, 0);
                acc = x->epoch[x->n_epoch - 1].test.acc;
            }
            printf("%8g %5llu %7lld %9.2f %9.4f%s\n", rate[r], (unsigned long long)seed, (long long)mdr_train_steps_done(t), (mdr_clock() - begin) / 60,
                   acc, acc >= 0.99 ? "" : "  not reached");
            fflush(stdout);
            mdr_train_close(t);
        }
    mdr_model_archs_free(&a);
    return NULL;
}

/* A model without mixing answers each key of a sequence always the same way, so a key's hits stand or fall together: the variance
 * of a sequence's accuracy is p(1-p) sum_k (share of key k)^2. This is the mean of that sum over the test sequences. */
static double concentration(const TrialSpec *s)
{
    int32_t rows = s->task->rows(&s->setting), *x = mdr_alloc((size_t)rows * 2 * sizeof *x);
    double *n = mdr_alloc((size_t)s->setting.vocab_size * sizeof *n), sum = 0;
    Dataset *d = NULL;
    Err *e = mdr_task_open(s->task, &s->setting, SPLIT_TEST, s->seed, &d);
    for (int64_t i = 0; !e && i < mdr_task_size(d); i++) {
        double wanted = 0, square = 0;
        mdr_task_example(d, i, x, x + rows);
        memset(n, 0, (size_t)s->setting.vocab_size * sizeof *n);
        for (int32_t k = 0; k < rows; k++)
            if (x[rows + k] >= 0) { n[x[k]]++; wanted++; }
        for (int32_t v = 0; v < s->setting.vocab_size; v++) square += n[v] * n[v];
        sum += wanted > 0 ? square / (wanted * wanted) : 1;
    }
    sum /= e ? 1 : (double)mdr_task_size(d);
    mdr_err_free(e);
    mdr_task_close(d);
    mdr_free(n);
    mdr_free(x);
    return sum;
}

/* Its accuracy is compared with the best constant guess; the unit of the error is the sequence. */
static Err *no_mixing(Pool *pool)
{
    ArchList a = {0};
    MDR_TRY(mdr_model_parse("swiglu*4", 0, NULL, &a));
    printf("\nswiglu*4 (no token mixing), 1,000 steps: plain test accuracy and its chance\n"
           "%5s %9s %9s %9s %12s\n", "seed", "accuracy", "chance", "std err", "|diff|/se");
    for (uint64_t seed = 1; seed <= 3; seed++) {
        TrialSpec s = recall(a.arch[0], 1e-3, seed, 1000);
        const TrialSpec *spec = &s;
        Trainer *t = NULL;
        TaskLevels l;
        s.task->levels(&s.setting, &l);
        MDR_TRY(mdr_train_open(&spec, 1, pool, &t));
        while (!mdr_train_finished(t)) {
            MDR_TRY(mdr_train_step(t));
            if (mdr_train_steps_done(t) == 1000) MDR_TRY(mdr_train_evaluate(t));
        }
        const TrialResult *r = mdr_train_result(t, 0);
        double acc = r->epoch[r->n_epoch - 1].test.acc;
        double se = sqrt(l.chance * (1 - l.chance) * concentration(&s) / s.setting.num_test_examples);
        printf("%5llu %9.4f %9.4f %9.4f %12.2f\n", (unsigned long long)seed, acc, l.chance, se, fabs(acc - l.chance) / se);
        fflush(stdout);
        mdr_train_close(t);
    }
    mdr_model_archs_free(&a);
    return NULL;
}

int main(int argc, char **argv)
{
    Pool *pool = NULL;
    Err *e = mdr_pool_open(argc > 1 ? atoi(argv[1]) : mdr_cpu_count(), &pool);
    if (!e) e = attention(pool, argc > 2 ? atoi(argv[2]) : 4000);
    if (!e) e = no_mixing(pool);
    if (e) { fprintf(stderr, "%s (%s)\n", mdr_err_text(e), mdr_err_born(e)); return 1; }
    mdr_pool_close(pool);
    return 0;
}
