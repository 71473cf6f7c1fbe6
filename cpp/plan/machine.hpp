// What the machine and the operating system allow this process.
#pragma once

#include <cstddef>
#include <string>

namespace onepass {

// Bytes of the last-level cache; 8 MiB where nothing tells.
std::size_t last_level_cache();

// Bytes of a core's first-level cache for data; 32 KiB where nothing tells. ONEPASS_FIRST_CACHE in the environment takes
// its place, for tests of what other machines do.
std::size_t first_level_cache();

// Processors that the process may use: its affinity, no more than its cgroup's quota (rounded up).
int usable_cpus();

// The quota of the process's cgroup in processors, or 0 where there is none. `root` stands before every path that is read.
double cgroup_quota(const std::string& root = "");

}   // namespace onepass
