"""The playground: open anything, complete or chat, steer, and take home what came out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import ipywidgets as widgets

from workbench import answers, transcript
from workbench.conversation import Conversation, Turn
from workbench.divergence import answer_of
from workbench.engine import Engine
from workbench.errors import InputError, RequestError, WorkbenchError
from workbench.generation import Alternative, Generation
from workbench.opened import Opened, Prompt
from workbench.sampling import Sampling
from workbench.session import Session
from workbench.sources import Source, exact_source
from workbench.steering import Looks, Offer, Trail, tells, told
from workbench.summaries import timing_line
from workbench.widgets.chat import History
from workbench.widgets.earlier import Earlier
from workbench.widgets.exports import Exports, Form, check_form
from workbench.widgets.opener import SourceChooser
from workbench.widgets.samples import Sample, Samples
from workbench.widgets.sampling import Count, SamplingForm
from workbench.widgets.source import EngineSource
from workbench.widgets.stream import StreamPanel
from workbench.widgets.tokens import Alternative as Choice
from workbench.widgets.tokens import TokenView

Mode = Literal["chat", "completion"]


class PlaygroundPanel(StreamPanel):
    """A stream panel with a chooser, a conversation and exports."""

    def __init__(
        self,
        source: EngineSource | Source | str | None = None,
        *,
        mode: Mode = "chat",
        system_prompt: str = "",
        n: int = 1,
        **values: Any,
    ) -> None:
        """Show the panel.

        Args:
            source: What to open at first; None opens nothing until somebody chooses.
            mode: Chat with the model's own template, or plain completion.
            system_prompt: What comes before the conversation.
            n: Samples of each prompt, see `Count`. The first one is the answer until another one
                is taken; `record` has the others as "samples".
            values: As for `StreamPanel`.

        Raises:
            WorkbenchError: As for `StreamPanel`.
        """
        if mode not in get_args(Mode):
            raise InputError(f"mode is one of {', '.join(get_args(Mode))}; got {mode!r}.")
        self.conversation = Conversation(system_prompt)
        self._n = Count.parse({"n": n})
        self._samples = Samples(self.take_sample, self.show_error)
        self._sent: Prompt = ""
        self._place = 0
        """What was asked for the answer that is shown, and the number of its turn."""
        self._looks = Looks()
        self._head: Trail | None = None
        """The beginning of the answer, where a person chose a token of it."""
        self._instead: int | None = None
        """The turn that is answered again; it goes only when there is another answer."""
        self._chooser = SourceChooser(self._choose)
        self._mode = widgets.ToggleButtons(
            options=get_args(Mode), value=mode, tooltips=_MODES, style={"button_width": "110px"}
        )
        self._system = widgets.Textarea(
            value=system_prompt,
            description="system",
            placeholder="A system prompt, if the model shall have one",
            layout=widgets.Layout(width="100%", height="44px"),
            style={"description_width": "60px"},
        )
        self._history = History(self.edit, self.regenerate)
        self._earlier = Earlier(self._use_prompt, self.boundary)
        self._clear_button = widgets.Button(
            description="Clear", tooltip="Forget the conversation; records stay"
        )
        self._exports = Exports(self, self.export, _EXPORTS)
        super().__init__(source, title="Playground", **values)
        self._clear_button.on_click(lambda _: self.clear())

    def _layout(self) -> list[widgets.Widget]:
        chooser = widgets.Accordion([self._chooser], titles=("Open",), selected_index=0)
        above = [chooser, self._title, widgets.HBox([self._mode, self._clear_button]), self._system]
        below = [self._prompt, self._sampling, self._buttons(), self._view, self._samples]
        return [*above, self._history, *below, self._exports, self._earlier]

    def _make_form(self, sampling: Sampling) -> SamplingForm:
        return SamplingForm(sampling, self._n)

    def _open(self, source: Source) -> None:
        super()._open(source)
        self._chooser.refresh(source.key if isinstance(source, Engine) else "")

    def _take(self, session: Opened) -> None:
        super()._take(session)
        self._earlier.show(exact_source(self._source, session))

    def _use_prompt(self, asked: str) -> None:
        self._prompt.value = asked

    def _make_view(self) -> TokenView:
        return TokenView(heat=True, alternatives=self._choices_at, continue_from=self.continue_from)

    def continue_from(self, index: int, token_id: int) -> None:
        """Answer again from a token on, with another one in its place; returns at once.

        Args:
            index: Of the answer's token, from 0.
            token_id: One of the most probable tokens there.

        Raises:
            RequestError: A generation is running, or the token is none of them.
            WorkbenchError: The source cannot go on.
        """
        self._refuse_while_running()
        session, trail, generation = self._trail()
        chosen = [one for one in self._look(index) if one.id == token_id]
        if not chosen:
            raise RequestError(f"The token {token_id} is none of the most probable ones there.")
        head = told(session, trail.instead(index, chosen[0]))
        self._refuse_while_running()
        if self._generation is not generation:
            raise RequestError("Another answer came meanwhile. Choose a token of it.")
        turns = self.conversation.turns
        self._instead = len(turns) - 1 if turns and turns[-1].record is self.record else None
        sampling = Sampling.parse(self.record["sampling"] if self.record else {})
        self._begin(self._question, head.prompt_ids, sampling, head)

    def _start_one(
        self, session: Opened, asked: Prompt, sampling: Sampling, head: Trail | None
    ) -> Generation:
        if head and isinstance(session, Session):
            generation = session.generate(asked, sampling, said=head.said)
            self._samples.clear()
            return generation
        count = self._sampling.count
        generation = super()._start_one(session, asked, sampling, head)
        try:
            self._samples.start(session, asked, generation.sampling, count - 1)
        except WorkbenchError:
            generation.cancel()
            raise
        return generation

    def stop(self) -> None:
        """Stop the running generation, and the other samples of its prompt."""
        super().stop()
        self._samples.cancel()

    def take_sample(self, number: int) -> None:
        """Make another sample the answer, from which the conversation goes on.

        Args:
            number: Of the samples in `record["samples"]`, from 0. One that failed is refused.
        """
        with self.boundary():
            self._refuse_while_running()
            if self._generation is None or not 0 <= number < len(self._samples.samples):
                raise RequestError(f"There is no sample {number + 2} of this prompt.")
            if self._samples.samples[number].failed:
                raise RequestError(f"Sample {number + 2} failed; it is no answer to go on from.")
            before = self.record or {}
            before.pop("samples", None)
            answer = Sample(self._generation, self._came, before)
            taken = self._samples.swap(number, answer)
            self._generation, self._came = taken.generation, taken.came
            self.record = taken.record | {"source": before.get("source")}
            self.record["samples"] = [one.record for one in self._samples.samples]
            self.records[-1] = self.record
            taken.replay(self._view, self._session.limits if self._session else {})
            # There is no turn yet where the first sample failed; and none shall be where a person
            # has gone back behind what was asked.
            if self._sent == self.conversation.messages(self._question, self._place):
                self.conversation.add(self._question, self.record, self._place)
                self._history.show(self.conversation)

    def _choices_at(self, index: int) -> list[Choice]:
        """Return what the view shows for a token."""
        return [Choice(one.id, one.text, one.logprob) for one in self._look(index)]

    def _look(self, index: int) -> Sequence[Alternative]:
        session, trail, generation = self._trail()
        whole = self._idle.is_set()
        return self._looks.at(session, generation, trail, index, whole=whole)

    def _trail(self) -> tuple[Opened, Trail, Generation]:
        """Return the open session, and the tokens of the answer that is shown, with what gave them.

        Raises:
            RequestError: Nothing was generated, or the engine is not loaded.
        """
        if self._generation is None or self._session is None or self._session.closed:
            raise RequestError("The engine of this answer is not loaded. Load it again.")
        generation = self._generation
        trail = Trail(tuple(generation.prompt_ids), answer_of("", self._came).tokens)
        if self._head:
            head = self._head
            trail = Trail(head.prompt_ids, (*head.tokens, *trail.tokens), head.begun)
        return self._session, trail, generation

    def _started(self, asked: Prompt, head: Trail | None) -> None:
        self._head = head
        if self._session and self._generation:
            offer = Offer.of(self._session, self._generation.sampling)
            self._view.offer(alternatives=offer.alternatives, going_on=offer.going_on)
        if head is None:
            self._sent = asked
            turns = len(self.conversation.turns)
            self._place = turns if self._instead is None else self._instead
            if not isinstance(asked, str):
                self.conversation.system_prompt = self._system.value
            return
        for token in head.tokens:
            self._view.append(token.text, Trail((), (token,)).logprobs)

    def _wanted(self, sampling: Sampling, session: Opened) -> Sampling:
        return tells(session, sampling)

    def edit(self, number: int) -> None:
        """Bring a turn back into the prompt area; it and all after it are forgotten.

        Args:
            number: Of the turn, from 0.
        """
        with self.boundary():
            self._refuse_while_running()
            self._prompt.value = self.conversation.back_to(number)
            self._history.show(self.conversation)

    def regenerate(self, number: int = -1) -> None:
        """Answer a turn again; it and all after it are forgotten. By default the last one.

        With the same seed the same text comes again; leave the seed empty for another one.
        """
        with self.boundary():
            self._refuse_while_running()
            last = len(self.conversation.turns) - 1
            number = last if number == -1 else number
            asked = self.conversation.asked(number)
            self._instead = number
            self._ask(asked)

    def send(self, prompt: str | None = None) -> None:
        """Generate; returns at once, the tokens appear in the panel."""
        if self._idle.is_set():
            self._instead = None
        super().send(prompt)

    def clear(self) -> None:
        """Forget the conversation."""
        with self.boundary():
            self._refuse_while_running()
            self.conversation.clear()
            self._history.show(self.conversation)
            self._forget()

    def _forget(self) -> None:
        super()._forget()
        self._samples.clear()

    def export(self, form: Form) -> str:
        """Return the transcript ("markdown"), the records ("json"), or what asks the same again.

        Raises:
            InputError: There is no such form.
            RequestError: Nothing was generated yet.
        """
        check_form(form)
        source = self._asked_source
        if source is None or self.record is None:
            raise RequestError("Nothing was generated yet. Send a prompt first.")
        if form == "markdown":
            turns = self.conversation.turns
            if isinstance(self._sent, str):
                turns = [Turn(self._sent, self.record["text"], self.record)]
            return transcript.markdown(turns, source, self.conversation.system_prompt)
        if form == "json":
            return transcript.record_json(self.records)
        head = self._head
        sampling = Sampling.parse(self.record["sampling"])
        others = [one["sampling"]["seed"] for one in self.record.get("samples", [])]
        if form == "curl":
            return transcript.curl_line(source, head.ids if head else self._sent, sampling, others)
        asked = list(head.prompt_ids) if head else self._sent
        return transcript.python_snippet(source, asked, sampling, others, head)

    def plain(self) -> str:
        """Return all turns, or the prompt and what completed it, with timings as plain text."""
        if isinstance(self._sent, str) or not self.conversation.turns:
            return super().plain()
        lines = []
        for turn in self.conversation.turns:
            lines += [f"> {turn.asked}", "", turn.answered, "", timing_line(turn.record), ""]
            for one in turn.record.get("samples", []):
                seed = f"another sample, seed {one['sampling']['seed']}:"
                lines += [seed, one["text"], "", timing_line(one), ""]
        return "\n".join(lines[:-1])

    def _asked(self, prompt: str, session: Opened) -> Prompt:
        if self._mode.value == "completion":
            return prompt
        if not session.facts["chat_template"]:
            raise RequestError(
                "This model has no chat template, so nobody knows how it takes messages. Choose "
                "completion."
            )
        asking = Conversation(self._system.value, self.conversation.turns)
        return asking.messages(prompt, self._instead)

    def _ended(self, prompt: str, generation: Generation) -> None:
        if self.record and (others := self._samples.wait()):
            self.record["samples"] = [one.record for one in others]
        if not isinstance(self._sent, str) and generation.error is None and self.record:
            self.conversation.add(prompt, self.record, self._instead)
            self._history.show(self.conversation)
        self._instead = None
        if self._asked_source and self.record and self.record["text"]:
            how, settings = timing_line(self.record), transcript.options_line(self.record)
            answers.keep(self._asked_source, prompt, self.record["text"], how, settings)
            self._earlier.show(self._asked_source)

    def _choose(self, find: Callable[[], Source]) -> None:
        """Open what was chosen, in the background."""
        self._retired = False
        self.show_error("")
        self.in_background(self._find_and_open, find)

    def _find_and_open(self, find: Callable[[], Source]) -> None:
        self._refuse_while_running()
        self._show_title("looking for what was chosen ...")
        try:
            source = find()
        except WorkbenchError:
            self._show_what_is_open()
            raise
        self._open(source)


_MODES = (
    "Messages, which the model's own template turns into text",
    "The text as it stands, which the model goes on with",
)

_EXPORTS: dict[Form, str] = {
    "markdown": "The transcript",
    "json": "The records of all generations",
    "python": "The program that asks the same",
    "curl": "The shell line that asks a server the same",
}
