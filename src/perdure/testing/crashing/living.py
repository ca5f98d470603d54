"""Bringing one run to its end, over as many workers as it takes.

The driver of a crash run is what a program is to a real one: it starts the run,
sends what is to be sent, and after a crash does again what it had not heard the
answer of, with the same ids. Time goes to the next moment for which something
waits when nothing else can come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from ...blocks.workflow import WorkflowCall
from ...core.records import Message, MessageKind, Status
from ...errors import PerdureError, RunClosed, UpdateRefused
from ...runtime.subscriptions import Subscribing
from ..events import Append, Ask, Cancel, Event, Send, Wait
from ..journals import describe_waiting
from .doomed import DoomedEngine
from .spots import Names
from .turning import until_idle
from .world import World

_LIVES_MAX = 20
_NAP_S = 0.001
_PATIENCE_S = 20.0
_LEAVE_AFTER = 1_000
_WAITS_MAX = 1_000
"""So often handlers may wait for time to pass: one that fails and never gives up would go on for ever."""


class NeverEnds(AssertionError):
    """The run waits for what cannot come any more."""


class Driving:
    """One run of one world, from its start to its end."""

    def __init__(
        self,
        world: World,
        call: WorkflowCall[Any] | None,
        events: Sequence[Event],
        *,
        handlers: Sequence[Subscribing] | None = None,
        sent: int = 0,
    ) -> None:
        """`sent`: so many events were sent before. `handlers`: those that are served; None: all."""
        self.run_id = "" if call is None else call.definition.name
        self._world = world
        self._call = call
        self._events = events
        self._handlers = handlers
        self._next = sent
        """The event that is to be sent."""
        self._until_ms: int | None = None
        """Of a `Wait` that is under way."""
        self._sent = Names()
        self._asking: dict[int, asyncio.Task[Any]] = {}
        self._unanswered: list[int] = []
        self._waits = 0
        """How often handlers have waited for time to pass."""

    async def to_the_end(self) -> DoomedEngine:
        """The engine of the last life, still open. Raises NeverEnds when the run does not end."""
        world = self._world
        zombie: DoomedEngine | None = None
        try:
            while world.life < _LIVES_MAX:
                world.begin_life()
                engine = DoomedEngine(world, self._handlers)
                try:
                    await self._live(engine, zombie)
                except BaseException as error:
                    await self._leave(engine)
                    if not world.is_dead or not isinstance(error, PerdureError):
                        raise
                self._stop_asking()
                if world.is_paused:
                    zombie = engine
                elif world.is_dead:
                    await self._leave(engine)
                else:
                    return engine
            raise NeverEnds(f"it did not come to its end in {_LIVES_MAX} lives")
        finally:
            if zombie is not None:
                await zombie.vanish()

    async def _leave(self, engine: DoomedEngine) -> None:
        """The worker is dead."""
        await engine.vanish()
        turns = 0
        while self._world.running > 0 and turns < _LEAVE_AFTER:
            turns += 1
            await self._world.wait_for_stir(_NAP_S)  # a thread goes on; a real death would have ended it
        behind_ms = self._world.down_until_ms - self._world.clock.now_ms()
        if behind_ms > 0:
            self._world.clock.jump(behind_ms / 1000)

    # -- one life --------------------------------------------------------------------------------

    async def _live(self, engine: DoomedEngine, zombie: DoomedEngine | None) -> None:
        """Until runs have ended and events are where they belong, or the worker is dead or held up."""
        world = self._world
        await engine.__aenter__()
        world.clock.next_elsewhere = engine.next_ms
        if self._call is not None and not await self._do(engine, engine.start(self._call, id=self.run_id)):
            return
        if zombie is not None:
            zombie.wake()
        for index in self._unanswered:
            self._ask(engine, index)
        while await self._quiet(engine):
            is_running = bool(engine.faulty.counts().get(Status.RUNNING))
            if self._next < len(self._events) and (is_running or self._call is None):
                if not await self._send(engine, self._events[self._next]):
                    return
            elif not (is_running or (engine.handlers and self._goes_on())) or not self._let_time_pass(engine):
                return

    def _goes_on(self) -> bool:
        """Whether handlers, windows or joins wait for their time."""
        self._waits += 1
        if self._waits > _WAITS_MAX:
            raise NeverEnds(f"handlers were still waiting for their time after {_WAITS_MAX} moments")
        return self._world.clock.next_ms() is not None

    async def _do(self, engine: DoomedEngine, what: Coroutine[Any, Any, Any], *, waits: bool = True) -> bool:
        """Do it; False when the worker died or was held up before. `waits`: for what comes of it, too."""
        task = asyncio.get_running_loop().create_task(what)
        while not task.done():
            if not waits:
                await until_idle(lambda: task.done() or self._world.has_stopped())
            if task.done() and not self._world.has_stopped():
                break
            if not await self._quiet(engine):
                task.cancel()
                await asyncio.wait([task])
                return False
        task.result()
        return True

    async def _quiet(self, engine: DoomedEngine) -> bool:
        """Wait until nothing more comes of what was done; False when the worker is dead or held up."""
        world = self._world
        seen, give_up_at = world.events, 0.0
        while True:
            await until_idle(world.has_stopped)
            if world.has_stopped():
                return False
            if engine.is_quiet and not engine.running_steps and not world.handling:
                break
            await world.wait_for_stir(_NAP_S)
            now = asyncio.get_running_loop().time()
            if world.events != seen:
                seen, give_up_at = world.events, 0.0
            give_up_at = give_up_at or now + _PATIENCE_S
            if now > give_up_at:
                waiting = describe_waiting(engine.driver, engine.next_ms())
                what = "a handler" if world.handling else "a step"
                raise NeverEnds(f"{what} did not come to its end in {_PATIENCE_S:g} s\n{waiting}")
        if (error := engine.driver.committer.error) is not None:
            raise error
        return True

    def _let_time_pass(self, engine: DoomedEngine) -> bool:
        """Go to the next moment for which something waits; False when the worker dies instead."""
        world = self._world
        moment = world.clock.next_ms()
        if moment is None:
            waiting = describe_waiting(engine.driver, None)
            raise NeverEnds(f"the run waits for what cannot come any more\n{waiting}")
        if world.reach(world.names.count("wait"), "due-while-down"):
            world.is_dead = True
            world.down_until_ms = moment
            return False
        world.clock.jump((moment - world.clock.now_ms()) / 1000)
        return True

    # -- what comes from outside -----------------------------------------------------------------

    async def _send(self, engine: DoomedEngine, event: Event) -> bool:
        """Send the next event, and go on to the one after it once that is sure."""
        index = self._next
        try:
            match event:
                case Wait():
                    return await self._wait(engine, event)
                case Ask():
                    self._ask(engine, index)
                    if not await self._quiet(engine):
                        return False
                case Append() if self._call is None:
                    return await self._append(engine)
                case Send() | Append() | Cancel():
                    if not await self._do(engine, self._tell(engine, event, index)):
                        return False
                    moment = self._sent.count(str(event).replace(" ", "-"))
                    if self._world.reach(moment, "twice"):
                        await self._do(engine, self._tell(engine, event, index))
        except RunClosed:
            pass  # it ended before; what it came to is looked at in the end
        self._next = index + 1
        self._world.sent(self._next)
        return True

    async def _append(self, engine: DoomedEngine) -> bool:
        """Append all events up to one of another kind, without a word from who handles them in between."""
        while self._next < len(self._events) and isinstance(event := self._events[self._next], Append):
            if not await self._do(engine, self._tell(engine, event, self._next), waits=False):
                return False
            moment = self._sent.count(str(event).replace(" ", "-"))
            if self._world.reach(moment, "twice"):
                await self._do(engine, self._tell(engine, event, self._next), waits=False)
            self._next += 1
            self._world.sent(self._next)
        return True

    def _tell(
        self, engine: DoomedEngine, event: Send | Append | Cancel, index: int
    ) -> Coroutine[Any, Any, object]:
        if isinstance(event, Send):
            return engine.send(self.run_id, event.signal, event.value, signal_id=f"event-{index}")
        if isinstance(event, Append):
            return engine.append(
                event.stream, event.value, id=f"event-{index}", source="test", time=event.time
            )
        return engine.cancel(self.run_id, event.reason)

    async def _wait(self, engine: DoomedEngine, event: Wait) -> bool:
        clock = self._world.clock
        if self._until_ms is None:
            # From the latest time that a run may have seen: it does not see the clock go back.
            self._until_ms = max(clock.now_ms(), self._world.latest_ms) + event.ms
        due_ms = clock.next_ms()
        if due_ms is not None and due_ms <= self._until_ms:
            return self._let_time_pass(engine)
        clock.jump((self._until_ms - clock.now_ms()) / 1000)
        self._until_ms = None
        self._next += 1
        self._world.sent(self._next)
        return True

    def _ask(self, engine: DoomedEngine, index: int) -> None:
        """Send an update, and listen for its answer; again in the next life, if this one ends before."""
        if index not in self._unanswered:
            self._unanswered.append(index)
        self._asking[index] = asyncio.get_running_loop().create_task(self._hear(engine, index))

    def _stop_asking(self) -> None:
        for task in self._asking.values():
            task.cancel()
        self._asking.clear()

    async def _hear(self, engine: DoomedEngine, index: int) -> None:
        event = self._events[index]
        assert isinstance(event, Ask)
        request = f"event-{index}"
        row = engine.faulty.run_by_id(self.run_id)
        if row is not None and engine.faulty.reply(request) is None:
            payload = event.update.encode(event.value)
            now_ms = self._world.clock.now_ms()
            message = Message(0, row.number, MessageKind.UPDATE, event.update.name, payload, request, now_ms)
            try:
                await engine.door.ask(message)
            except (UpdateRefused, RunClosed):
                pass  # an answer too
            except PerdureError:
                if engine.driver.committer.error is None:
                    raise
                return
        self._unanswered.remove(index)
        self._asking.pop(index, None)
