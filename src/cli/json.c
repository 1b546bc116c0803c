/* What every command's JSON has in common: real numbers with all their digits, null where a number is not finite. */
#include "cli/internal.h"
#include <math.h>
#include <stdlib.h>

json_t *mdr_cli_real(double x) { return isfinite(x) ? json_real(x) : json_null(); }

Err *mdr_cli_print_json(json_t *o, size_t flags)
{
    char *s = json_dumps(o, flags | JSON_REAL_PRECISION(17));
    json_decref(o);
    if (!s) return MDR_ERR_MACHINE("the result cannot be written as JSON: a text in it is not UTF-8");
    Text t = {0};
    mdr_text_printf(&t, "%s\n", s);
    free(s);
    Err *e = mdr_cli_print(mdr_text_str(&t));
    mdr_text_free(&t);
    return e;
}
