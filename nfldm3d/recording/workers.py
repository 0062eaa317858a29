"""Processes that record at the same time, and do not outlive the one that started them."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def start_workers(count: int) -> Iterator[Callable[..., "Future[Any]"]]:
    """So many processes; ``submit(function, *arguments)`` runs a function in one of them, with one thread.

    They do not survive the block or this process.
    """
    context = multiprocessing.get_context("spawn")
    pool: Executor = ProcessPoolExecutor(count, mp_context=context, initializer=_obey, initargs=(os.getpid(),))
    others = set(multiprocessing.active_children())

    def submit(function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        with _held_back(signal.SIGINT):
            return pool.submit(_run_or_leave, function, *arguments)

    try:
        yield submit
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown()


@contextmanager
def _held_back(number: int) -> Iterator[None]:
    """Keeps a signal from processes that start in the block, which inherit that; it reaches this one afterwards. Ctrl-C
    goes to all processes of a terminal, and those that are still starting would print where they were."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_or_leave(function: Callable[..., Any], *arguments: Any) -> Any:
    torch.set_num_threads(1)
    try:
        return function(*arguments)
    except SystemExit:  # the pool would take it for a result and go on
        os._exit(143)


def _obey(parent: int) -> None:
    """Ends this process tidily when its parent asks for it or is gone."""

    def stop(*_: object) -> None:
        raise SystemExit(143)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    threading.Thread(target=watch, daemon=True).start()
