"""Reading cgroup v2: where its hierarchy is, and what its files say."""
