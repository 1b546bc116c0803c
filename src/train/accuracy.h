/* The scores of one batch of evaluation, for both C and CUDA (base/both.h): classes are added one by one from 0 up, so equal counts
 * give equal bits. Plain accuracy: hits over wanted. Macro (mad-lab's, through torchmetrics): mean over classes of hit/wanted; a class
 * neither wanted nor predicted is left out, one predicted but never wanted counts 0. */
#ifndef MDR_ACCURACY_H
#define MDR_ACCURACY_H
#include "base/real_math.h"
#include "train/train.h"

typedef struct ClassSums { double wanted, hit, classes, shares; } ClassSums;

MDR_BOTH ClassSums accuracy_class(double wanted, double predicted, double hit)
{
    ClassSums c = {wanted, hit, wanted == 0 && predicted == 0 ? 0.0 : 1.0, wanted > 0 ? hit / wanted : 0.0};
    return c;
}

MDR_BOTH void accuracy_add(ClassSums *all, const ClassSums *c)
{
    all->wanted += c->wanted;
    all->hit += c->hit;
    all->classes += c->classes;
    all->shares += c->shares;
}

/* n_seq of the split's size sequences, of mean loss `loss`: a term of the split's means. */
MDR_BOTH void accuracy_score(SplitScore *score, int32_t n_seq, int64_t size, double loss, const ClassSums *all)
{
    double weight = (double)n_seq / (double)size;
    score->loss += d_mul(weight, loss);
    score->ppl += d_mul(weight, d_exp(loss));
    score->acc += d_mul(weight, all->wanted > 0 ? all->hit / all->wanted : 0.0);
    score->acc_macro += d_mul(weight, all->classes > 0 ? all->shares / all->classes : 0.0);
}
#endif
