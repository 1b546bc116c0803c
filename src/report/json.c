/* What every command's JSON has in common: the head of an object, real numbers with all their digits, null where a number
 * is not finite or does not exist, an epoch's metrics under the names that are promised. */
#include "report/report.h"
#include <math.h>
#include <stdlib.h>

json_t *mdr_report_real(double x) { return isfinite(x) ? json_real(x) : json_null(); }

json_t *mdr_report_json_head(const char *schema, const char *protocol) {
    json_t *o = json_object();
    json_object_set_new(o, "schema", json_string(schema));
    json_object_set_new(o, "madras", json_string(MDR_VERSION));
    json_object_set_new(o, "protocol", protocol ? json_string(protocol) : json_null());
    return o;
}

void mdr_report_json_epoch(json_t *o, const EpochScore *e) {
    json_object_set_new(o, "epoch", e ? json_integer(e->epoch) : json_null());
    json_object_set_new(o, "step", e ? json_integer(e->step) : json_null());
    json_object_set_new(o, "train_loss", mdr_report_real(e ? e->train_loss : (double)NAN));
    for (int i = 0; i < 2; i++) {
        static const char *const name[] = {"loss", "ppl", "acc", "acc_macro"};
        const double none = (double)NAN;
        const SplitScore s = !e ? (SplitScore){none, none, none, none} : i ? e->test : e->valid;
        const double v[] = {s.loss, s.ppl, s.acc, s.acc_macro};
        for (int k = 0; k < MDR_COUNT(name); k++) {
            char key[32];
            snprintf(key, sizeof key, "%s_%s", i ? "test" : "valid", name[k]);
            json_object_set_new(o, key, mdr_report_real(v[k]));
        }
    }
}

Err *mdr_report_json(json_t *o, size_t flags, Text *out) {
    char *s = json_dumps(o, flags | JSON_REAL_PRECISION(17));
    json_decref(o);
    if (!s) return MDR_ERR_MACHINE("the result cannot be written as JSON: a text in it is not UTF-8");
    mdr_text_printf(out, "%s\n", s);
    free(s);
    return NULL;
}
