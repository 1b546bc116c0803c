/* The register tiles under matmul and matmul_tn (AVX2 and FMA): to[r, 0..8 NV) = from[r, ..) + sum_k x(r, k) w[k, 0..8 NV).
 * Every element is one chain of FMAs in k order, so its bits depend neither on the tile's size nor on where the tile lies.
 * w is a packed panel, 8 NV floats a k. Everything is written out by macros because clang ignores gcc's unroll pragma.
 * Not here: which tile is run where, and the edges (a tile is always written whole). Include from *.cpu.c only. */
#ifndef MDR_MATMUL_TILE_H
#define MDR_MATMUL_TILE_H
#include <immintrin.h>
#include <stdint.h>

/* from_ld 0: every row starts from the same numbers (bias, zeros); from == to: accumulate. */
typedef void TileFn(int64_t k, const float *x, int64_t ld, const float *w, const float *from, int64_t from_ld, float *to, int64_t to_ld);

/* The same, where w is not packed yet: it is read from y (rows ld_y apart) and left in w for the tiles that follow. */
typedef void TileCopyFn(int64_t k, const float *x, int64_t ld, float *w, const float *y, int64_t ld_y, const float *from, int64_t from_ld,
                        float *to, int64_t to_ld);
#define ARGS_BY_ROW int64_t k, const float *x, int64_t ld, const float *w
#define ARGS_BY_COL ARGS_BY_ROW
#define ARGS_COPY int64_t k, const float *x, int64_t ld, float *w, const float *y, int64_t ld_y

enum { TILE_MAX_ROWS = 8, TILE_MAX_VECTORS = 3 };
/* Most rows of a tile by its width in vectors: as many accumulators as 16 registers hold beside w and one broadcast. */
static const int8_t tile_rows[TILE_MAX_VECTORS + 1] = {0, 8, 6, 4};

#define ROWS_1(F) F(0)
#define ROWS_2(F) ROWS_1(F) F(1)
#define ROWS_3(F) ROWS_2(F) F(2)
#define ROWS_4(F) ROWS_3(F) F(3)
#define ROWS_5(F) ROWS_4(F) F(4)
#define ROWS_6(F) ROWS_5(F) F(5)
#define ROWS_7(F) ROWS_6(F) F(6)
#define ROWS_8(F) ROWS_7(F) F(7)

#define LOAD_1(r) __m256 a##r = _mm256_loadu_ps(from + r * from_ld);
#define LOAD_2(r) LOAD_1(r) __m256 b##r = _mm256_loadu_ps(from + r * from_ld + 8);
#define LOAD_3(r) LOAD_2(r) __m256 c##r = _mm256_loadu_ps(from + r * from_ld + 16);
#define STORE_1(r) _mm256_storeu_ps(to + r * to_ld, a##r);
#define STORE_2(r) STORE_1(r) _mm256_storeu_ps(to + r * to_ld + 8, b##r);
#define STORE_3(r) STORE_2(r) _mm256_storeu_ps(to + r * to_ld + 16, c##r);
#define W_1(HOW, j) const __m256 wa = W_##HOW(1, j, 0);
#define W_2(HOW, j) W_1_OF(2, HOW, j) const __m256 wb = W_##HOW(2, j, 1);
#define W_3(HOW, j) W_1_OF(3, HOW, j) const __m256 wb = W_##HOW(3, j, 1), wc = W_##HOW(3, j, 2);
#define W_1_OF(NV, HOW, j) const __m256 wa = W_##HOW(NV, j, 0);
#define W_BY_ROW(NV, j, v) _mm256_loadu_ps(w + (j) * 8 * NV + 8 * v)
#define W_BY_COL(NV, j, v) W_BY_ROW(NV, j, v)
#define W_COPY(NV, j, v) load_and_copy(y + (j) * ld_y + 8 * v, w + (j) * 8 * NV + 8 * v)
static inline __m256 load_and_copy(const float *from, float *to) {
    const __m256 v = _mm256_loadu_ps(from);
    _mm256_storeu_ps(to, v);
    return v;
}
#define FMA_1(r, v) a##r = _mm256_fmadd_ps(v, wa, a##r);
#define FMA_2(r, v) FMA_1(r, v) b##r = _mm256_fmadd_ps(v, wb, b##r);
#define FMA_3(r, v) FMA_2(r, v) c##r = _mm256_fmadd_ps(v, wc, c##r);

/* The broadcast operand: BY_ROW: row r of the tile is a row of memory, at q##r; BY_COL: it is a column, and four steps have a
 * pointer each. The empty asm hides how the pointers are related: gcc would make them sums of a dozen registers. */
#define ROW_POINTER(r) const float *q##r = x + (r) * ld;
#define ROW_HIDE(r) __asm__("" : "+r"(q##r));
#define ROW_NEXT_4(r) q##r += 4;
#define ROW_NEXT_1(r) q##r++;
#define COL_NEXT_4(r) q##r += 4 * ld;
#define POINTERS_BY_ROW(MR) ROWS_##MR(ROW_POINTER)
#define POINTERS_BY_COL(MR) ROWS_4(ROW_POINTER)
#define HIDE_BY_ROW(MR) ROWS_##MR(ROW_HIDE)
#define HIDE_BY_COL(MR) ROWS_4(ROW_HIDE)
#define NEXT_4_BY_ROW(MR) ROWS_##MR(ROW_NEXT_4)
#define NEXT_4_BY_COL(MR) ROWS_4(COL_NEXT_4)
#define NEXT_1_BY_ROW(MR) ROWS_##MR(ROW_NEXT_1)
#define NEXT_1_BY_COL(MR) q0 += ld;
#define POINTERS_COPY(MR) ROWS_4(ROW_POINTER)
#define HIDE_COPY(MR) ROWS_4(ROW_HIDE)
#define NEXT_4_COPY(MR) ROWS_4(COL_NEXT_4) y += 4 * ld_y;
#define NEXT_1_COPY(MR) q0 += ld; y += ld_y;
#define AT_COPY(r, j) AT_BY_COL(r, j)
#define AT_BY_ROW(r, j) (q##r + (j))
#define AT_BY_COL(r, j) (q##j + (r))

#define TILE_ROW(r, j, NV, HOW) { const __m256 v = _mm256_broadcast_ss(AT_##HOW(r, j)); FMA_##NV(r, v) }
#define TILE_STEP(MR, NV, HOW, j) { W_##NV(HOW, j) TILE_STEP_##MR(NV, HOW, j) }
#define TILE_STEP_1(NV, HOW, j) TILE_ROW(0, j, NV, HOW)
#define TILE_STEP_2(NV, HOW, j) TILE_STEP_1(NV, HOW, j) TILE_ROW(1, j, NV, HOW)
#define TILE_STEP_3(NV, HOW, j) TILE_STEP_2(NV, HOW, j) TILE_ROW(2, j, NV, HOW)
#define TILE_STEP_4(NV, HOW, j) TILE_STEP_3(NV, HOW, j) TILE_ROW(3, j, NV, HOW)
#define TILE_STEP_5(NV, HOW, j) TILE_STEP_4(NV, HOW, j) TILE_ROW(4, j, NV, HOW)
#define TILE_STEP_6(NV, HOW, j) TILE_STEP_5(NV, HOW, j) TILE_ROW(5, j, NV, HOW)
#define TILE_STEP_7(NV, HOW, j) TILE_STEP_6(NV, HOW, j) TILE_ROW(6, j, NV, HOW)
#define TILE_STEP_8(NV, HOW, j) TILE_STEP_7(NV, HOW, j) TILE_ROW(7, j, NV, HOW)

#define TILE(MR, NV, HOW)                                                                                              \
    static void tile_##HOW##_##MR##_##NV(ARGS_##HOW, const float *from, int64_t from_ld, float *to, int64_t to_ld) {   \
        ROWS_##MR(LOAD_##NV)                                                                                           \
        POINTERS_##HOW(MR)                                                                                             \
        for (; k >= 4; k -= 4) {                                                                                       \
            HIDE_##HOW(MR)                                                                                             \
            TILE_STEP(MR, NV, HOW, 0) TILE_STEP(MR, NV, HOW, 1)                                              \
            TILE_STEP(MR, NV, HOW, 2) TILE_STEP(MR, NV, HOW, 3)                                              \
            NEXT_4_##HOW(MR)                                                                                           \
            w += 4 * 8 * NV;                                                                                           \
        }                                                                                                              \
        for (; k > 0; k--) {                                                                                           \
            TILE_STEP(MR, NV, HOW, 0)                                                                             \
            NEXT_1_##HOW(MR)                                                                                           \
            w += 8 * NV;                                                                                               \
        }                                                                                                              \
        ROWS_##MR(STORE_##NV)                                                                                          \
    }
/* All tiles of one kind and their table: TILES(BY_ROW, TileFn) makes tile_BY_ROW[vectors][rows]. */
#define TILES(HOW, FN)                                                                                                     \
    TILE(1, 1, HOW) TILE(2, 1, HOW) TILE(3, 1, HOW) TILE(4, 1, HOW) TILE(5, 1, HOW) TILE(6, 1, HOW) TILE(7, 1, HOW)    \
    TILE(8, 1, HOW) TILE(1, 2, HOW) TILE(2, 2, HOW) TILE(3, 2, HOW) TILE(4, 2, HOW) TILE(5, 2, HOW) TILE(6, 2, HOW)    \
    TILE(1, 3, HOW) TILE(2, 3, HOW) TILE(3, 3, HOW) TILE(4, 3, HOW)                                                    \
    static FN *const tile_##HOW[TILE_MAX_VECTORS + 1][TILE_MAX_ROWS + 1] = {                                       \
        {NULL},                                                                                                        \
        {NULL, tile_##HOW##_1_1, tile_##HOW##_2_1, tile_##HOW##_3_1, tile_##HOW##_4_1, tile_##HOW##_5_1,               \
         tile_##HOW##_6_1, tile_##HOW##_7_1, tile_##HOW##_8_1},                                                        \
        {NULL, tile_##HOW##_1_2, tile_##HOW##_2_2, tile_##HOW##_3_2, tile_##HOW##_4_2, tile_##HOW##_5_2,               \
         tile_##HOW##_6_2},                                                                                            \
        {NULL, tile_##HOW##_1_3, tile_##HOW##_2_3, tile_##HOW##_3_3, tile_##HOW##_4_3}};

/* Columns are cut into panels of 16, the last one 24 wide if at most 8 are over (8 if there are at most 8 in all): a full
 * row of accumulators either way. Panel p stands at p * 16 * k in a packed operand. */
static inline int64_t panel_count(int64_t cols) { return cols <= 16 ? 1 : (cols + 7) / 16; }
static inline int panel_vectors(int64_t cols, int64_t p) {
    int64_t left = cols - 16 * p;
    return p + 1 < panel_count(cols) ? 2 : left <= 8 ? 1 : left <= 16 ? 2 : 3;
}
/* Rows of the next tile where `left` remain: the last two share equally, so that none is too thin to hide the FMA's latency. */
static inline int64_t tile_next(int64_t left, int64_t most) {
    return left >= 2 * most || left == most ? most : left > most ? (left + 1) / 2 : left;
}
#endif
