/* Scores of an evaluation from its batches' losses and class counts; the text is accuracy.h's, metrics.cu is the same on a GPU. */
#include "train/accuracy.h"
#include "train/internal.h"

void mdr_train_score(const double *counts, int32_t vocab, double loss, int32_t n_seq, int64_t size, SplitScore *score)
{
    ClassSums all = {0, 0, 0, 0};
    for (int32_t c = 0; c < vocab; c++) {
        ClassSums one = accuracy_class(counts[c], counts[vocab + c], counts[2 * (int64_t)vocab + c]);
        accuracy_add(&all, &one);
    }
    accuracy_score(score, n_seq, size, loss, &all);
}
