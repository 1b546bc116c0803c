/* madras train --plan: what a layer became. The lowered graph with its gradients, one op a line; the plan's instructions
 * in the order they run, each value with its place; what memory they take. Nothing is trained. */
#include "cli/internal.h"

static void memory(const PlanInfo *i, int workers, Text *t)
{
    const struct { const char *what, *note; int64_t bytes; } row[] = {
        {"parameters", "and as much for each moment of the optimiser", i->stride * 4},
        {"constants", "", i->const_bytes},
        {"step", "values that no sequence changes", i->step_bytes},
        {"slice", "a worker's values of one slice, forward and backward", i->slice_bytes},
        {"scratch", "a worker's, inside one op", i->scratch_bytes},
        {"lane", "gradients of a lane's slices", i->lane_bytes},
        {"post", "after the lanes are folded", i->post_bytes}};
    mdr_text_printf(t, "\nmemory: %lld weights in %d parameters, batch cut into %d slices of %d sequences, %d lanes, %d workers\n",
                    (long long)i->n_weight, i->n_param, i->n_slice, i->slice, i->n_lane, workers);
    for (int k = 0; k < MDR_COUNT(row); k++)
        mdr_text_printf(t, "  %-11s %12lld bytes%s%s\n", row[k].what, (long long)row[k].bytes, row[k].note[0] ? "  " : "", row[k].note);
}

Err *mdr_cli_print_plan(const Args *a, const TrialSpec *spec)
{
    Pool *pool = NULL;
    Trainer *t = NULL;
    Text out = {0}, arch = {0};
    Err *e = mdr_train_check(spec);
    if (!e) e = mdr_cli_pool(a, &pool);
    if (!e) e = mdr_train_open(&spec, 1, pool, &t);
    if (!e) {
        PlanInfo info = mdr_exec_info(mdr_train_plan(t));
        mdr_model_print(spec->arch, &arch);
        mdr_text_printf(&out, "%s on %s, float32, %s\n\ngraph: number, op, shapes, phase <- inputs  (layer)\n", mdr_text_str(&arch),
                        spec->task->name, mdr_cpu_class());
        mdr_ir_print(mdr_train_graph(t), &out);
        mdr_text_printf(&out, "\nplan: phase, op, places of its outputs (+= added into) <- of its inputs  (layer)\n");
        mdr_exec_print(mdr_train_plan(t), &out);
        memory(&info, mdr_pool_size(pool), &out);
        e = mdr_cli_print(mdr_text_str(&out));
    }
    mdr_text_free(&out);
    mdr_text_free(&arch);
    mdr_train_close(t);
    mdr_pool_close(pool);
    return e;
}
