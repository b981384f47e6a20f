"""zoo/inference/ahead.py: order, bounds, failures and ends of work that runs ahead."""

import contextvars
import threading
import time

import pytest

from zoo.inference.ahead import ahead


def test_keeps_the_order_in_a_thread_of_its_own():
    threads = set()

    def made():
        for number in range(50):
            threads.add(threading.get_ident())
            yield number

    assert list(ahead(made(), 3)) == list(range(50))
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_goes_on_while_an_item_is_used():
    begun = [threading.Event() for _ in range(10)]

    def made():
        for number, event in enumerate(begun):
            event.set()
            yield number

    for number in ahead(made(), 1):
        assert all(event.wait(60) for event in begun[: number + 2])


@pytest.mark.parametrize("size", [1, 4])
def test_no_more_wait_than_asked_for(size):
    made = []

    def numbers():
        for number in range(20):
            made.append(number)
            yield number

    for used in ahead(numbers(), size):
        time.sleep(0.002)
        assert len(made) <= used + 1 + size


def test_a_failure_comes_in_its_place():
    def numbers():
        yield 1
        yield 2
        raise ValueError("the third")

    items = ahead(numbers(), 5)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(items)


def test_what_is_left_is_closed():
    closed = threading.Event()

    def numbers():
        try:
            yield from range(1000)
        finally:
            closed.set()

    items = ahead(numbers(), 2)
    assert next(items) == 0
    items.close()
    assert closed.wait(5)


def test_sees_the_context_of_its_caller():
    seen = contextvars.ContextVar("seen", default="none")
    seen.set("mine")
    assert list(ahead((seen.get() for _ in range(2)), 1)) == ["mine", "mine"]
