/* Accuracies of one batch from its class counts (wanted, predicted, hit). Plain: hits over wanted. Macro (mad-lab's, through
 * torchmetrics): mean over classes of hit/wanted; a class neither wanted nor predicted is left out, one predicted but never
 * wanted counts 0. */
#include "train/internal.h"

void mdr_train_accuracy(const double *counts, int32_t vocab, double *plain, double *macro)
{
    const double *wanted = counts, *predicted = counts + vocab, *hit = counts + 2 * (int64_t)vocab;
    double n_wanted = 0, n_hit = 0, sum = 0, classes = 0;
    for (int32_t c = 0; c < vocab; c++) {
        n_wanted += wanted[c];
        n_hit += hit[c];
        if (wanted[c] == 0 && predicted[c] == 0) continue;
        classes += 1;
        if (wanted[c] > 0) sum += hit[c] / wanted[c];
    }
    *plain = n_wanted > 0 ? n_hit / n_wanted : 0;
    *macro = classes > 0 ? sum / classes : 0;
}
