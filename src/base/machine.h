/* Inside base: the container's CPU quota, by roots that a test can replace. */
#ifndef MDR_MACHINE_H
#define MDR_MACHINE_H
#include "base/base.h"
/* CPUs that the cgroups listed in the file self ("/proc/self/cgroup") allow under root ("/sys/fs/cgroup"), the tightest of
 * all levels; 0 = no limit. Version 2: cpu.max; version 1: cpu.cfs_quota_us and cpu.cfs_period_us. */
double mdr_machine_quota(const char *self, const char *root);
#endif
