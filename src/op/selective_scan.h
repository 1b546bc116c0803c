/* What the files of selective_scan share: the distance of checkpoints and the places of the arguments. */
#ifndef MDR_SELECTIVE_SCAN_H
#define MDR_SELECTIVE_SCAN_H
enum { SCAN_CHUNK = 16 };            /* tokens between saved states                                                        */
enum { IN_U, IN_DELTA, IN_A, IN_B, IN_C, IN_D, IN_STATES, IN_DY };        /* the last two: of the gradient only             */
enum { OUT_Y, OUT_STATES };
enum { OUT_DU, OUT_DDELTA, OUT_DA, OUT_DB, OUT_DC, OUT_DD };
#endif
