def part_digests(spec, *, random_init, seed, use_t5):
    return None
