"""The bridge to remote I/O: a sensor's input triggers, and coils work an ejector."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Final

from inspector.bridges.ejector import Ejector, Inputs, Way
from inspector.bridges.modbus_client import Device, DeviceError
from inspector.bridges.polling import Inbox, stopped_by_signals
from inspector.bridges.station_link import StationLink
from inspector.client import ClientKeys
from inspector.config.modbus_client import RemoteIoBridge
from inspector.errors import WireError
from inspector.logs import say
from inspector.verdict import Verdict

_AGAIN_S: Final = 0.2
"""Between two tries to reach the module."""
_PROVE_S: Final = 1.0
"""So often the module's guards are read again; somebody may have turned them off."""
_DROPPED_S: Final = 1.0
"""Between two lines in the log about parts that get no PASS; each counts those since the last."""
_QUIET_S: Final = 10.0
"""Between two lines in the log with the same complaint."""


class RemoteIo:
    """The bridge at work; used by one thread.

    Nothing is written but outputs that are due, their ends, and the healthy coil. After a failure
    the first that goes to the module turns every output off: whether a coil is on is not known
    then. A connection counts for nothing until the module's guards were found on.

    Once an output's end is due, it is written before anything else is asked: each request would
    make the module's watchdog wait anew, so that a bridge which the system hardly lets run could
    keep a PASS on beyond pulse and watchdog.
    """

    def __init__(self, config: RemoteIoBridge, keys: ClientKeys | None) -> None:
        self._config = config
        self._inbox = Inbox()
        self._device = Device(config, self._end)
        self._is_ending = False
        self._ejector = Ejector(_way(config), uuid.uuid4().hex)
        self._link = StationLink(
            config.station.commands,
            keys,
            {config.camera: self._ejector},
            tell=self._inbox.put,
            heartbeat_s=config.heartbeat_s,
            result_timeout_s=config.result_timeout_ms / 1000,
        )
        self._coils = {
            verdict: coil
            for verdict, coil in (
                (Verdict.PASS, config.pass_coil),
                (Verdict.FAIL, config.fail_coil),
                (Verdict.FAULT, config.fault_coil),
            )
            if coil is not None
        }
        self._proven_s: float | None = None
        self._complaint = ""
        self._complained_s = 0.0
        self._dropped_s = 0.0

    def run(self, stop: Callable[[], bool], polling: Callable[[], None] | None = None) -> None:
        """Work until ``stop``; ``polling`` hears that the module is read. Raises WireError."""
        config, link = self._config, self._link
        link.start()
        say("polling", modbus=config.connect, camera=config.camera)
        try:
            while not stop() and link.is_alive():
                begun_s = time.monotonic()
                try:
                    if not self._device.is_connected:
                        self._begin()
                        if polling is not None:
                            polling()
                    self._prove()
                    self._sense()
                    self._drive()
                    self._wait(begun_s + config.poll_ms / 1000)
                except DeviceError as error:
                    self._lose(str(error))
                    self._do_actions()
                    self._inbox.work(time.monotonic() + _AGAIN_S)
        finally:
            self._finish()
        if link.crashed:
            raise WireError("the connection to the station ended by a crash, which the log shows")

    def _begin(self) -> None:
        """Connect, with every output off before anything else. Raises DeviceError."""
        self._device.connect()
        self._turn_all_off()
        self._proven_s = None
        self._prove()
        say("module there", modbus=self._config.connect)
        self._complaint = ""

    def _prove(self) -> None:
        now_s = time.monotonic()
        if self._proven_s is not None and now_s < self._proven_s + _PROVE_S:
            return
        wrong = find_unguarded(self._device, self._config)
        if wrong:
            self._turn_all_off()
            raise DeviceError(wrong)
        self._proven_s = now_s

    def _turn_all_off(self) -> None:
        coils = list(self._coils.values())
        if self._config.healthy_coil is not None:
            coils.append(self._config.healthy_coil)
        for coil in coils:
            self._device.write_coil(coil, False)

    def _sense(self) -> None:
        begun_s = time.monotonic()
        inputs = read_inputs(self._device, self._config)
        self._ejector.sense(inputs, begun_s, time.monotonic())
        # A trigger waits for no coil.
        self._do_actions()

    def _drive(self) -> None:
        """Write what is to be on or off by now. Raises DeviceError."""
        ejector = self._ejector
        self._end()
        while (firing := ejector.due(time.monotonic())) is not None:
            coil, begun_s = self._coils.get(firing.output), time.monotonic()
            try:
                if coil is not None:
                    self._device.write_coil(coil, True)
            except DeviceError:
                ejector.fired(firing, begun_s, False)
                raise
            ejector.fired(firing, begun_s, True)
            if coil is None:
                ejector.ended(firing.output)
        level = ejector.wave(time.monotonic())
        if level is not None and self._config.healthy_coil is not None:
            self._device.write_coil(self._config.healthy_coil, level)
        self._do_actions()

    def _end(self) -> None:
        """Turn off the outputs whose time is over. Raises DeviceError."""
        if self._is_ending:
            return
        self._is_ending = True
        try:
            for verdict in self._ejector.ending(time.monotonic()):
                coil = self._coils.get(verdict)
                if coil is not None:
                    self._device.write_coil(coil, False)
                self._ejector.ended(verdict)
        finally:
            self._is_ending = False

    def _wait(self, until_s: float) -> None:
        """Until the next poll, hear the station and keep the outputs' times. Raises DeviceError."""
        while True:
            next_s = self._ejector.next_s()
            wake_s = until_s if next_s is None else min(until_s, next_s)
            heard = self._inbox.work(wake_s)
            if heard or (next_s is not None and time.monotonic() >= next_s):
                self._drive()
            if time.monotonic() >= until_s:
                return

    def _do_actions(self, say_all: bool = False) -> None:
        for action in self._ejector.take_actions():
            self._link.do(self._config.camera, action)
        now_s = time.monotonic()
        if say_all or now_s >= self._dropped_s + _DROPPED_S:
            dropped = self._ejector.take_dropped()
            for why, parts in dropped.items():
                say("no pass", logging.WARNING, why=why, parts=parts)
            if dropped:
                self._dropped_s = now_s

    def _lose(self, problem: str) -> None:
        self._device.close()
        self._ejector.lost()
        now_s = time.monotonic()
        if problem != self._complaint or now_s >= self._complained_s + _QUIET_S:
            self._complaint, self._complained_s = problem, now_s
            say("module gone", logging.WARNING, problem=problem)

    def _finish(self) -> None:
        try:
            if self._device.is_connected:
                self._turn_all_off()
        except DeviceError as error:
            say("module gone", logging.WARNING, problem=str(error))
        self._device.close()
        self._ejector.lost()
        self._do_actions(say_all=True)
        self._link.finish()


def run(config: RemoteIoBridge, keys: ClientKeys | None) -> None:
    """Run the bridge until SIGTERM or Ctrl-C. Raises WireError."""
    with stopped_by_signals() as stop:
        RemoteIo(config, keys).run(stop)


def read_inputs(device: Device, config: RemoteIoBridge) -> Inputs:
    """What the module's inputs show. Raises DeviceError."""
    wanted = [config.trigger_input]
    if config.belt_input is not None:
        wanted.append(config.belt_input)
    first = min(wanted)
    # Inputs that stand far apart are asked for one by one: a module need not have those between.
    if max(wanted) - first < 16:
        bits = device.read_inputs(first, max(wanted) - first + 1)
        found = {number: bits[number - first] for number in wanted}
    else:
        found = {number: device.read_inputs(number, 1)[0] for number in wanted}
    encoder = None
    if config.encoder_register is not None:
        words = config.encoder_bits // 16
        read = device.read_registers(config.encoder_register, words, config.encoder_table)
        encoder = read[0] if words == 1 else read[0] << 16 | read[1]
    belt = config.belt_input is None or found[config.belt_input]
    return Inputs(found[config.trigger_input], belt, encoder)


def find_unguarded(device: Device, config: RemoteIoBridge) -> str:
    """What keeps the module from turning a PASS off by itself, "" if nothing does.

    Raises DeviceError.
    """
    for key, guard in (("watchdog", config.watchdog), ("module_pulse", config.module_pulse)):
        if guard is None:
            continue
        for register, value in guard.registers.items():
            (found,) = device.read_registers(register, 1, guard.table)
            if found != value:
                return (
                    f"{config.connect}: {key}: register {register} is {found}, not {value}: a PASS "
                    f"could stay on; set it in the module"
                )
    return ""


def _way(config: RemoteIoBridge) -> Way:
    return Way(
        camera=config.camera,
        delay_s=None if config.delay_ms is None else config.delay_ms / 1000,
        delay_pulses=config.delay_pulses,
        tolerance_s=config.tolerance_ms / 1000,
        tolerance_pulses=config.tolerance_pulses,
        standstill_s=config.standstill_ms / 1000,
        encoder_bits=config.encoder_bits,
        pulse_s=config.pulse_ms / 1000,
        result_timeout_s=config.result_timeout_ms / 1000,
        heartbeat_s=config.heartbeat_s,
    )
