"""Shapes: generators, coroutines and async generators, whose blocks never suspend."""

from __future__ import annotations

import asyncio
import contextlib

import ame
from shapes.table import Table

TABLE = Table()


@TABLE.shape
def generator(c):
    x = 0
    for item in range(3):
        yield x
        with ame.atomic():
            c.enter()
            x += item + 1
            c.point()
            c.ref.value += x
        yield c.ref.value
    c.locals(locals())
    return x


@TABLE.shape
def generator_with_return_and_break(c):
    for item in range(6):
        yield item
        with ame.atomic():
            c.enter()
            c.ref.value += item
            c.point()
            if item == 1:
                continue
            if item == 3:
                break
        yield "end"
    with ame.atomic():
        c.enter()
        c.point()
        c.table["x"] = 1
        return
    yield "never"


@TABLE.shape
def generator_that_is_sent_values(c):
    def running():
        total = 0
        while True:
            got = yield total
            try:
                with ame.atomic():
                    c.enter()
                    total += got
                    c.ref.value = total
                    c.point()
                    if total > 5:
                        raise ValueError(total)
            except ValueError:
                total = -1

    made = running()
    return [made.send(each) for each in (None, 1, 2, 3, 4)]


@TABLE.shape
def generator_thrown_into_and_closed(c):
    def running():
        x = 0
        try:
            while True:
                try:
                    yield x
                except KeyError as error:
                    with ame.atomic():
                        c.enter()
                        x += len(str(error))
                        c.point()
                        c.ref.value = x
        finally:
            with ame.atomic():
                c.enter()
                c.ref.value += 100
                c.point()

    made = running()
    told = [next(made), made.throw(KeyError("k")), next(made)]
    made.close()
    return told, c.ref.value


@TABLE.shape
def generator_delegates(c):
    def inner(n):
        with ame.atomic():
            c.enter()
            n += 1
            c.point()
            c.ref.value += n
        yield n
        return n * 10

    def outer():
        first = yield from inner(1)
        with ame.atomic():
            c.enter()
            first += 1
            c.point()
            c.ref.value += first
        second = yield from inner(first)
        yield second

    return list(outer())


@TABLE.shape
def generator_consumed_in_a_block(c):
    def numbers():
        n = 0
        while n < 4:
            n += 1
            yield n

    x = 0
    with ame.atomic():
        c.enter()
        for n in numbers():
            x += n
            c.ref.value += x
        c.point()
        rest = [*numbers()]
    return x, rest


@TABLE.shape
def error_leaves_a_generator(c):
    yield 1
    with ame.atomic():
        c.enter()
        c.ref.value += 1
        c.point()
        raise ValueError("from a generator")


@TABLE.shape
async def coroutine(c):
    x = 1
    await asyncio.sleep(0)
    with ame.atomic():
        c.enter()
        x += 1
        c.point()
        c.ref.value = x
    await asyncio.sleep(0)
    with ame.atomic():
        c.enter()
        x += c.ref.value
        c.point()
        c.ref.value += x
        return x


@TABLE.shape
async def coroutine_with_loops_and_managers(c):
    @contextlib.asynccontextmanager
    async def manager(name):
        c.note("enter", name)
        yield name
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
        c.note("exit", name)

    async def numbers(stop):
        for n in range(stop):
            await asyncio.sleep(0)
            yield n

    total = 0
    async with manager("m") as name:
        async for n in numbers(5):
            with ame.atomic():
                c.enter()
                total += n
                c.point()
                c.ref.value += total
                if n == 1:
                    continue
                if n == 3:
                    break
            c.note("end", n, name)
        else:
            c.note("else")
    c.locals({"total": total, "n": n})
    return total


@TABLE.shape
async def coroutine_that_fails(c):
    try:
        await asyncio.sleep(0)
    finally:
        with ame.atomic():
            c.enter()
            c.ref.value += 1
            c.point()
            raise LookupError("from a coroutine")


@TABLE.shape
async def coroutines_that_take_turns(c):
    async def worker(n):
        total = 0
        for _ in range(3):
            with ame.atomic():
                c.enter()
                total += n
                c.ref.value += n
                c.point()
            await asyncio.sleep(0)
        return total

    return await asyncio.gather(worker(1), worker(10), worker(100))


@TABLE.shape
async def coroutine_made_in_a_block(c):
    async def later(n):
        await asyncio.sleep(0)
        return n + 1

    with ame.atomic():
        c.enter()
        n = c.ref.value

        async def made():
            return n + await later(n)

        c.point()
        c.ref.value += 1
    return await made()


@TABLE.shape
async def async_generator(c):
    x = 0
    for item in range(4):
        with ame.atomic():
            c.enter()
            x += item
            c.point()
            c.ref.value += x
            if item == 1:
                continue
            if item == 3:
                return
        yield x
        await asyncio.sleep(0)
        yield [n async for n in _count(item)]


async def _count(stop):
    for n in range(stop):
        yield n
