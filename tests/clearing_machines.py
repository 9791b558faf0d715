"""Both sides of many settlements over a network that loses, repeats, delays and cuts; all of it drawn from one seed.

The model beside them knows only what it saw the books do: who reserved, posted, voided, and how often.
"""

import random
from collections import Counter
from dataclasses import dataclass, field

from loopd.ledger.clearing.rules import (
    Book,
    Decision,
    Payee,
    PayeeEvent,
    Payer,
    PayerEvent,
    Say,
    payee_decision,
    payee_opens,
    payee_step,
    payer_decision,
    payer_opens,
    payer_step,
)

_ASKED = {None: PayerEvent.ASKED, "post": PayerEvent.ASKED_POST, "void": PayerEvent.ASKED_VOID}
_ASKED["freeze"] = PayerEvent.ASKED_FREEZE


@dataclass(frozen=True)
class Message:
    """What one side of settlement `number` says, with what it decided, asks or acknowledges."""

    number: int
    to_payer: bool
    say: Say
    word: str | None


@dataclass
class Pair:
    """One settlement as both sides have it durably; `payer` is None until it has heard of it."""

    payee: Payee
    payer: Payer | None = None
    has_funds: bool = True
    fits: bool = True
    booked_by_payer: Counter[Book] = field(default_factory=Counter)
    booked_by_payee: Counter[Book] = field(default_factory=Counter)


class Network:
    """Nodes that pay each other, and the messages between them."""

    def __init__(self, seed: int, settlements: int) -> None:
        self.random = random.Random(seed)
        self.pairs: list[Pair] = []
        self.waiting: list[Message] = []
        self.cut = False
        for _ in range(settlements):
            opened = payee_opens()
            pair = Pair(opened.payee, has_funds=self.random.random() < 0.9, fits=self.random.random() < 0.9)
            self.pairs.append(pair)
            self._say(len(self.pairs) - 1, to_payer=True, say=opened.say, word=None)

    def disturb(self) -> None:
        """One thing happens, whatever it is."""
        number = self.random.randrange(len(self.pairs))
        draw = self.random.random()
        if draw < 0.55 and self.waiting:
            self._pass_on()
        elif draw < 0.60:
            self.cut = not self.cut
        elif draw < 0.80:
            self._payee_does(number, self.random.choice(list(PayeeEvent)[-4:]))
        elif draw < 0.97:
            self._payer_does(number, self.random.choice((PayerEvent.REMIND, PayerEvent.REMIND, PayerEvent.TIMED_OUT)))
        else:
            self._resolve(number)

    def calm_down(self) -> None:
        """The links are up, nothing is lost; disputes are resolved, what is open is ended, and everybody reminds."""
        self.cut = False
        for number, pair in enumerate(self.pairs):
            self._payee_does(number, PayeeEvent.ASK_POST if pair.payee.ask is None else PayeeEvent.REMIND)
        for _ in range(12):
            while self.waiting:
                self._hear(self.waiting.pop(0))
            for number in range(len(self.pairs)):
                self._resolve(number)
                self._payee_does(number, PayeeEvent.REMIND)
                self._payer_does(number, PayerEvent.REMIND)

    def check(self, *, calm: bool) -> None:
        """Nobody decides otherwise than the other, and the books move once, and wholly."""
        for pair in self.pairs:
            told = payee_decision(pair.payee)
            decided = None if pair.payer is None else payer_decision(pair.payer)
            assert told is None or told is decided
            for booked in (pair.booked_by_payer, pair.booked_by_payee):
                assert all(times == 1 for times in booked.values())
                assert booked[Book.POST] + booked[Book.VOID] <= 1
            if calm:
                assert decided is told is not None
                assert pair.payer is not None
                assert pair.payer.acknowledged
                paid = decided is Decision.POST
                assert (pair.booked_by_payer[Book.POST], pair.booked_by_payee[Book.POST]) == (paid, paid)
                assert pair.booked_by_payee[Book.RESERVE] == sum(
                    pair.booked_by_payee[end] for end in (Book.POST, Book.VOID)
                )

    def _pass_on(self) -> None:
        message = self.waiting.pop(self.random.randrange(len(self.waiting)))
        fate = self.random.random()
        if self.cut or fate < 0.2:
            return
        if fate < 0.4:
            self.waiting.append(message)
        self._hear(message)

    def _hear(self, message: Message) -> None:
        number = message.number
        if not message.to_payer:
            events = {"post": PayeeEvent.DECIDED_POST, "void": PayeeEvent.DECIDED_VOID}
            prepare = PayeeEvent.PREPARE if self.pairs[number].fits else PayeeEvent.PREPARE_UNFIT
            self._payee_does(number, prepare if message.word is None else events[message.word])
        elif message.say is Say.ACKNOWLEDGEMENT:
            self._payer_does(number, PayerEvent(f"acknowledged_{message.word}"))
        elif message.say in (Say.PREPARED, Say.REFUSED):
            self._payer_does(number, PayerEvent(message.say.value))
        elif self.pairs[number].payer is None:
            self._open(number, asked=message.say is Say.REQUEST)
        else:
            self._payer_does(number, _ASKED[message.word])

    def _open(self, number: int, *, asked: bool) -> None:
        pair = self.pairs[number]
        opened = payer_opens(held=asked and pair.has_funds)
        pair.payer = opened.payer
        self._say_payer(number, opened.say)

    def _payer_does(self, number: int, event: PayerEvent) -> None:
        pair = self.pairs[number]
        if pair.payer is None or self._crashes():
            return
        step = payer_step(pair.payer, event)
        pair.payer = step.payer
        if step.book is not None:
            pair.booked_by_payer[step.book] += 1
        self._say_payer(number, step.say)

    def _payee_does(self, number: int, event: PayeeEvent) -> None:
        pair = self.pairs[number]
        if self._crashes():
            return
        step = payee_step(pair.payee, event)
        pair.payee = step.payee
        if step.book is not None:
            pair.booked_by_payee[step.book] += 1
        decided = payee_decision(step.payee)
        asks = None if step.payee.ask is None else step.payee.ask.value
        word = asks if step.say is Say.INQUIRY else None if decided is None else decided.value
        self._say(number, to_payer=True, say=step.say, word=word)

    def _resolve(self, number: int) -> None:
        payer = self.pairs[number].payer
        if payer is not None and payer.frozen:
            post = payer.state.value == "prepared" and self.random.random() < 0.5
            self._payer_does(number, PayerEvent.RESOLVE_POST if post else PayerEvent.RESOLVE_VOID)

    def _crashes(self) -> bool:
        # A crash before the commit: neither the state nor what was to be said is there.
        return self.cut and self.random.random() < 0.3

    def _say_payer(self, number: int, say: Say | None) -> None:
        payer = self.pairs[number].payer
        decided = None if payer is None else payer_decision(payer)
        self._say(number, to_payer=False, say=say, word=None if decided is None else decided.value)

    def _say(self, number: int, *, to_payer: bool, say: Say | None, word: str | None) -> None:
        if say is not None:
            self.waiting.append(Message(number, to_payer, say, word))
