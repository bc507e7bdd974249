from threading import Event

from fasternet_mm.parallel import in_threads


def test_results_are_in_the_order_of_the_items():
    assert list(in_threads(lambda number: number**2, range(50), 'squares')) == [number**2 for number in range(50)]


def test_closing_it_early_waits_for_no_thread():
    begun, release, ended = Event(), Event(), []

    def wait_for_release(number):
        if number:
            begun.set()
            release.wait(20)
            ended.append(number)

    results = in_threads(wait_for_release, range(3), 'waiting')
    next(results)
    assert begun.wait(20)
    results.close()
    assert not ended
    release.set()
