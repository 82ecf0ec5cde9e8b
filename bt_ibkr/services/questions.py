"""Which of IBKR's order questions are answered with yes.

Questions are known by their message ids, never by their text. Each is accepted, declined, or put to the user's own
function; an id that nothing is said about is declined: the order is then not placed, and its refusal names the
question. *Prompts* are questions of another kind, with an option to choose; they may also come later, by topic
``ntf``, for an order that stands already. The same policy answers them.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import tomllib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import msgspec

from bt_ibkr.errors import UsageError
from bt_ibkr.wire.order_answers import Prompt, Question

_log = logging.getLogger(__name__)

#: Precautions that a program which checks its own orders may pass, with IBKR's short titles.
ACCEPTED: Final[dict[str, str]] = {
    "o163": "price exceeds the percentage constraint",
    "o354": "order without market data",
    "o382": "value exceeds the tick size limit",
    "o383": "size exceeds the size limit",
    "o403": "order will most likely trigger at once",
    "o451": "total value exceeds the total value limit",
    "o2165": "fractions do not trade outside regular hours",
    "o10138": "size modification exceeds the limit",
    "o10151": "risks of a market order",
    "o10152": "risks of a stop order",
    "o10153": "mandatory cap price",
    "o10164": "what a cash quantity is",
    "o10223": "cash quantity confirmation",
    "o10288": "market order for cryptocurrency",
    "o10331": "about stop order types",
    "o10335": "rapid entry of orders",
    "o10336": "limited liquidity",
    "p12": "price management algorithm",
}
#: Known, and declined unless a policy says otherwise: they change what is traded, or for whom.
DECLINED: Final[dict[str, str]] = {
    "o2136": "mixed allocation",
    "o2137": "cross side order",
    "o10082": "called bond",
    "o10332": "OSL cryptocurrency order",
    "o10333": "exercise of an option at the money",
    "o10334": "omnibus account",
    "p6": "order is distributed over several accounts",
}
#: In ``ask``: every id that is neither accepted nor declined.
ANY: Final = "*"
#: IBKR suppresses no more ids of one session.
MOST_SUPPRESSED: Final = 51

_ID: Final = re.compile(r"[a-z][0-9]{1,6}")
_TAG: Final = re.compile(r"<[^>]{0,200}>")
_NO_WORDS: Final = re.compile(r"\b(do not|don't|no|not|never|decline|cancel|reject|discard)\b", re.IGNORECASE)
_FOR_EVER: Final = re.compile(r"\b(always|every|all|never ask|future)\b", re.IGNORECASE)


class OrderQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """A question as a person or a function of the user's is shown it.

    Attributes:
        message_ids: What it is known by; empty if IBKR named none.
        text: What is asked, without HTML.
        options: Words of the buttons.
        order_id: IBKR's id of the order, where the order stands already.
        is_prompt: One of ``options`` is the answer, not yes or no.
    """

    message_ids: tuple[str, ...]
    text: str
    options: tuple[str, ...] = ()
    order_id: str | None = None
    is_prompt: bool = False


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question.

    Attributes:
        accept: Yes or no.
        option: For a prompt: the option to answer with; ``None`` if none of them says what is meant. The prompt is
            then left unanswered, and the order's refusal or a notification must say so.
        reason: Why, for logs and messages.
    """

    accept: bool
    option: str | None = None
    reason: str


#: The user's function: yes or no. It runs in a thread of its own.
Ask = Callable[[OrderQuestion], bool]


def plain(question: Question | Prompt) -> OrderQuestion:
    """A question off the wire, as users see it."""
    if isinstance(question, Prompt):
        return OrderQuestion(
            message_ids=(question.message_id,) if question.message_id else (),
            text=_words(question.text),
            options=question.options,
            order_id=question.order_id,
            is_prompt=True,
        )
    return OrderQuestion(
        message_ids=question.message_ids,
        text=_words(" ".join(question.texts)),
        options=question.options,
    )


def each(question: Question) -> tuple[Question, ...]:
    """All questions of one answer, each with its own reply id; each wants its own reply."""
    return (msgspec.structs.replace(question, others=(), acks=(), prompts=()), *question.others)


def _words(text: str) -> str:
    return " ".join(_TAG.sub(" ", text).split())


class QuestionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Answers by message id. ``decline`` goes before ``ask``, ``ask`` before ``accept``.

    Attributes:
        accept: Ids answered with yes.
        decline: Ids answered with no, also if they are in ``accept``.
        ask: Ids put to ``callback``; ``*`` for all that are in neither of the others.
        options: For prompts: which option to choose, by message id, in IBKR's words.
        suppress: Ids that IBKR shall not ask in this session at all; told anew after each log-on. Each must be one
            that is answered with yes.
        callback: The user's function. It gets the question and returns whether to go on. It runs in its own
            thread; an error or no answer in time is a no.
        ask_timeout_s: How long ``callback`` may take. Other orders of the account wait that long, and IBKR drops
            a question that is not answered soon.
        most_questions: Longest chain of questions about one submission that is followed.

    Raises:
        UsageError: An id has no known form, ids are asked about without a ``callback``, or a suppressed id is not
            an accepted one.
    """

    accept: frozenset[str] = frozenset(ACCEPTED)
    decline: frozenset[str] = frozenset()
    ask: frozenset[str] = frozenset()
    options: dict[str, str] = {}
    suppress: frozenset[str] = frozenset()
    callback: Ask | None = None
    ask_timeout_s: float = 5.0
    most_questions: int = 8

    def __post_init__(self) -> None:
        for name in ("accept", "decline", "ask", "suppress", "options"):
            for one in getattr(self, name):
                if not _ID.fullmatch(one) and not (name == "ask" and one == ANY):
                    raise UsageError(
                        f"Question policy: {one!r} in {name} is no message id.",
                        remedy="They look like o163 or p12.",
                    )
        if self.ask and self.callback is None:
            raise UsageError(
                f"Question policy: {', '.join(sorted(self.ask))} are to be asked about, but no function is given.",
                remedy="Give callback, or accept or decline them.",
            )
        unsafe = self.suppress - (self.accept - self.decline - self.ask)
        if unsafe:
            raise UsageError(
                f"Question policy: {', '.join(sorted(unsafe))} would be suppressed but not accepted.",
                remedy="IBKR takes a suppressed question as answered with yes: accept it as well.",
            )
        if len(self.suppress) > MOST_SUPPRESSED:
            raise UsageError(
                f"Question policy: {len(self.suppress)} ids are suppressed; IBKR takes {MOST_SUPPRESSED}."
            )
        if not 0 < self.ask_timeout_s <= 60:
            raise UsageError(
                f"Question policy: ask_timeout_s must be between 0 and 60, not {self.ask_timeout_s!r}."
            )
        if not 1 <= self.most_questions <= 50:
            raise UsageError(
                f"Question policy: most_questions must be between 1 and 50, not {self.most_questions!r}."
            )

    def accepts(self, message_ids: Iterable[str]) -> bool:
        """Whether all of a question's ids are accepted, without asking. One without an id is declined."""
        ids = frozenset(message_ids)
        return bool(ids) and ids <= self.accept and not ids & (self.decline | self.ask)

    async def decide(self, question: Question | Prompt | OrderQuestion) -> Decision:
        """The answer to one question of the wire (not to its ``others``, see ``each``), or one prompt.

        Never raises for what the callback does; takes at most ``ask_timeout_s``.
        """
        shown = question if isinstance(question, OrderQuestion) else plain(question)
        accept, reason = await self._verdict(shown)
        if not shown.is_prompt:
            return Decision(accept=accept, reason=reason)
        option = self._option(shown, accept)
        if option is None:
            reason = f"{reason}; none of the options {list(shown.options)} says so"
        return Decision(accept=accept and option is not None, option=option, reason=reason)

    async def _verdict(self, shown: OrderQuestion) -> tuple[bool, str]:
        ids = frozenset(shown.message_ids)
        named = ", ".join(sorted(ids))
        if not ids:
            return False, "IBKR gave the question no id"
        declined = ids & self.decline
        if declined:
            return False, f"the policy declines {', '.join(sorted(declined))}"
        unknown = ids - self.accept
        asked = ids & self.ask or (unknown if ANY in self.ask else frozenset())
        if unknown - asked:
            return False, f"the policy does not know {', '.join(sorted(unknown - asked))}"
        if not asked:
            return True, f"the policy accepts {named}"
        return await self._ask(shown)

    async def _ask(self, shown: OrderQuestion) -> tuple[bool, str]:
        callback = self.callback
        if callback is None:  # pragma: no cover - refused when the policy is made
            return False, "nobody can be asked"
        named = ", ".join(shown.message_ids)
        try:
            answer: object = await asyncio.wait_for(_in_thread(callback, shown), self.ask_timeout_s)
        except TimeoutError:
            _log.warning("order-question-unanswered ids=%s after_s=%s", named, self.ask_timeout_s)
            return False, f"nobody answered {named} within {self.ask_timeout_s:g} s"
        except Exception as problem:  # noqa: BLE001
            # It is the user's code: whatever it raises is no yes.
            _log.exception("order-question-callback-failed ids=%s", named)
            return False, f"the function asked about {named} raised {type(problem).__name__}"
        if not isinstance(answer, bool):
            return False, f"the function asked about {named} returned {answer!r:.40}, not True or False"
        return answer is True, f"the function asked about {named} said {'yes' if answer else 'no'}"

    def _option(self, shown: OrderQuestion, accept: bool) -> str | None:
        """The option that says yes for this order alone, or no."""
        for one in shown.message_ids:
            wanted = self.options.get(one)
            if wanted is not None and accept:
                return next((o for o in shown.options if o.strip().lower() == wanted.strip().lower()), None)
        negative = [o for o in shown.options if _NO_WORDS.search(o)]
        if not accept:
            return next((o for o in negative if not _FOR_EVER.search(o)), None)
        return next((o for o in shown.options if o not in negative and not _FOR_EVER.search(o)), None)


async def _in_thread(callback: Ask, shown: OrderQuestion) -> object:
    """The callback's answer. Its thread is a daemon of its own: one that never ends holds up nobody."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[object] = loop.create_future()

    def settle(answer: object, problem: BaseException | None) -> None:
        if outcome.done():
            return
        if problem is not None:
            outcome.set_exception(problem)
        else:
            outcome.set_result(answer)

    def work() -> None:
        answer: object = None
        problem: BaseException | None = None
        try:
            answer = callback(shown)
        except Exception as raised:  # noqa: BLE001
            problem = raised
        except BaseException as raised:  # noqa: BLE001 - a SystemExit in it ends nothing else
            problem = RuntimeError(f"{type(raised).__name__} in the callback")
        try:
            loop.call_soon_threadsafe(settle, answer, problem)
        except RuntimeError:
            _log.info("order-question-answered-too-late ids=%s", ",".join(shown.message_ids))

    threading.Thread(target=work, name="order-question", daemon=True).start()
    return await outcome


class _Written(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[questions]`` of a TOML file."""

    defaults: bool = True
    accept: list[str] = []
    decline: list[str] = []
    ask: list[str] = []
    options: dict[str, str] = {}
    suppress: list[str] = []
    ask_timeout_s: float = 5.0
    most_questions: int = 8


def policy_from(table: Mapping[str, Any], *, source: str, callback: Ask | None = None) -> QuestionPolicy:
    """A policy from a table of a configuration file.

    ``accept`` adds to the ids that are accepted by default, unless ``defaults`` is false; ``decline`` takes away.

    Args:
        table: ``accept``, ``decline``, ``ask``, ``suppress`` (lists of ids), ``options`` (id to option),
            ``ask_timeout_s``, ``most_questions``, ``defaults``.
        source: The file, for messages.
        callback: Who is asked.

    Raises:
        UsageError: An unknown key, or a wrong value; the message names file, key and value.
    """
    for key in table:
        if key not in _Written.__struct_fields__:
            near = get_close_matches(key, _Written.__struct_fields__, n=1)
            raise UsageError(
                f"{source}: questions.{key} = {table[key]!r:.60} is no setting of the question policy.",
                remedy=f"Did you mean {near[0]}?"
                if near
                else f"Use {', '.join(_Written.__struct_fields__)}.",
            )
    try:
        written = msgspec.convert(dict(table), _Written, strict=True)
        base = frozenset(ACCEPTED) if written.defaults else frozenset()
        return QuestionPolicy(
            accept=base | frozenset(written.accept),
            decline=frozenset(written.decline),
            ask=frozenset(written.ask),
            options=written.options,
            suppress=frozenset(written.suppress),
            callback=callback,
            ask_timeout_s=written.ask_timeout_s,
            most_questions=written.most_questions,
        )
    except msgspec.ValidationError as problem:
        raise UsageError(
            f"{source}: questions: {problem}.", remedy="docs/orders.md shows the table."
        ) from None
    except UsageError as problem:
        raise UsageError(f"{source}: {problem.message}", remedy=problem.remedy) from None


def read_policy(path: str | Path, *, callback: Ask | None = None) -> QuestionPolicy:
    """The policy in the table ``[questions]`` of a TOML file; the default one if it has none.

    Raises:
        UsageError: The file cannot be read, is not TOML, or see ``policy_from``.
    """
    try:
        given = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        raise UsageError(f"The question policy {str(path)!r} cannot be read: {reason}.") from None
    except tomllib.TOMLDecodeError as problem:
        raise UsageError(f"The question policy {str(path)!r} is not TOML: {problem}.") from None
    table = given.get("questions", {})
    if not isinstance(table, dict):
        raise UsageError(f"{path}: questions = {table!r:.60} is no table.", remedy="Write [questions].")
    return policy_from(table, source=str(path), callback=callback)
