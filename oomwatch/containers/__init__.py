"""Who a cgroup is: from its path alone, and as runtimes and workers tell it."""
