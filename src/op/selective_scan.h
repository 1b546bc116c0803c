/* What the files of selective_scan share: the distance of checkpoints and the places of the arguments. */
#ifndef MDR_SELECTIVE_SCAN_H
#define MDR_SELECTIVE_SCAN_H
#include "ir/ir.h"
enum { SCAN_CHUNK = 16 };            /* tokens between saved states                                                        */
enum { IN_U, IN_DELTA, IN_A, IN_B, IN_C, IN_D, IN_STATES, IN_DY };        /* the last two: of the gradient only             */
enum { OUT_Y, OUT_STATES };
enum { OUT_DU, OUT_DDELTA, OUT_DA, OUT_DB, OUT_DC, OUT_DD };
#ifndef __cplusplus
/* The body of a scan, one token by basis ops: carry h [C, N]; u, delta [1, C], B, C [1, N]; a [C, N], d [C] -> h, y [1, C]. */
Graph *mdr_scan_token(Builder *b, const Node *n, int32_t cols, int32_t n_state);
#endif
#endif
