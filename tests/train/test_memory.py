"""Freed memory stays with the process that trains."""

import platform

import pytest


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has mallopt")
def test_a_step_does_not_ask_the_system_for_what_the_last_one_freed(python):
    """Page faults of a step that takes 40, 48 and 40 MB: about 32,000 by default."""
    faults = []
    for keep in (False, True):
        done = python(
            f"""
            import resource, torch
            from ssmdiff_train.memory import keep_freed_memory

            assert not {keep} or keep_freed_memory()

            def step():
                kept = [torch.empty(n << 18).fill_(1.0) for n in (40, 48, 40)]
                while kept:
                    kept.pop()

            for _ in range(8):
                step()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            step()
            print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
            """
        )
        assert done.returncode == 0, done.stderr
        faults.append(int(done.stdout))
    assert faults[0] > 20_000
    assert faults[1] < 1000
