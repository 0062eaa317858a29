"""The page in a browser: scenes, who looks at them, and what is being made. It needs ``pip install 'nfldm3d[viewer]'``.

What is chosen in the panels is shared by all pages, as are scenes and the painted map; each page has its own camera.
Nothing that a browser sends is taken for a path: scenes are known by their names in the list, files by their formats.
"""

import errno
import io
import socket
import threading
import warnings
from collections.abc import Callable, Coroutine, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Any

from nfldm3d.rendering import Renderer
from nfldm3d.scene import Scene
from nfldm3d.viewer.frames import Look, ShownScene
from nfldm3d.viewer.live_view import LiveView
from nfldm3d.viewer.page_camera import AHEAD, first_camera, place_camera, vertical_fov
from nfldm3d.viewer.same_origin import same_origin_only
from nfldm3d.viewer.tasks import FAILURES, TaskRunner

if TYPE_CHECKING:
    import viser

    from nfldm3d.guidance import Prior
    from nfldm3d.models.priors.restorer import Restorer
    from nfldm3d.pipelines import SceneGenerator

LOOPBACK = "127.0.0.1"
GRACE = 20.0
"""Seconds that tasks and frames have to end."""
NONE: str = "(no scene yet)"
LATE = "Queued a .* on a closed connection"
"""What viser warns of when something is sent to a page that has just been closed."""


class Viewer:
    """A server with its page; ``close`` ends it."""

    def __init__(
        self,
        scenes: Sequence[tuple[str, Scene]] = (),
        pipeline: "SceneGenerator | None" = None,
        *,
        restorer: "Restorer | None" = None,
        prior: "Prior | None" = None,
        host: str = LOOPBACK,
        port: int = 0,
        origins: Sequence[str] = (),
    ):
        """Opens the page.

        Args:
            scenes: names and scenes; they stay where they are computed.
            pipeline: makes scenes and parts of them; None leaves the panel out.
            restorer: sharpens scenes in that panel.
            prior: of pictures by texts, to dream of objects; None leaves that panel out.
            host: the address to listen at; whoever reaches it can use the page.
            port: 0 takes one that is free.
            origins: of other pages that may use it, as of a proxy that shows it under its own name.

        Raises:
            ValueError: the port is in use, or the address is none of this machine.
            ImportError: the extra ``viewer`` is missing.
        """
        self.server = open_server(host, port, origins)
        self.pipeline, self.restorer, self.prior = pipeline, restorer, prior
        self.scenes: dict[str, ShownScene] = {}
        self.look = Look()
        self.views: dict[int, LiveView] = {}
        self._leaving: list[LiveView] = []
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._seen: tuple[ShownScene, Look, Renderer] | None = None
        self._build()
        for name, scene in scenes:
            self.add(name, scene)
        if self.scenes:
            self.choose(next(iter(self.scenes)))
        self.server.on_client_connect(self._greet)
        self.server.on_client_disconnect(self._forget)

    def _build(self) -> None:
        from nfldm3d.viewer.keep_panel import KeepPanel
        from nfldm3d.viewer.view_panel import ViewPanel

        gui = self.server.gui
        gui.set_panel_label("nfldm3d")
        gui.configure_theme(control_width="medium", show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()
        self.server.scene.set_up_direction("+z")
        self.chosen = gui.add_dropdown("Scene", [NONE], initial_value=NONE)
        self.chosen.on_update(self.told(lambda event: event.client is None or self.choose(event.target.value)))
        self.status = gui.add_text("Status", "ready", disabled=True)
        self.bar = gui.add_progress_bar(0, visible=False)
        self.stop = gui.add_button("Cancel", color="red", visible=False)
        self.tasks = TaskRunner(self.say, self._tell)
        self.stop.on_click(lambda _: self.tasks.cancel())
        tabs = gui.add_tab_group()
        with tabs.add_tab("View"):
            self.view_panel = ViewPanel(self)
        self.paint_panel = self.make_panel = self.dream_panel = None
        if self.pipeline is not None:
            from nfldm3d.viewer.make_panel import MakePanel  # seconds, for those who only look at scenes

            with tabs.add_tab("Make"):
                self.make_panel = MakePanel(self, self.pipeline, self.restorer)
            if self.pipeline.map_size:
                from nfldm3d.viewer.paint_panel import PaintPanel

                with tabs.add_tab("Paint"):
                    self.paint_panel = PaintPanel(self, self.pipeline)
        if self.prior is not None:
            from nfldm3d.viewer.dream_panel import DreamPanel

            with tabs.add_tab("Dream"):
                self.dream_panel = DreamPanel(self, self.prior)
        with tabs.add_tab("Keep"):
            self.keep_panel = KeepPanel(self)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.get_port()

    @property
    def url(self) -> str:
        """What a browser on this machine opens."""
        host = self.server.get_host()
        return f"http://{LOOPBACK if host in ('0.0.0.0', '::') else host}:{self.port}"

    @property
    def current(self) -> ShownScene | None:
        """The scene that is shown."""
        return self.scenes.get(self.chosen.value)

    def require_current(self) -> ShownScene:
        """The scene that is shown; a ValueError if there is none."""
        if self.current is None:
            raise ValueError("there is no scene yet: open one with nfldm3d view SCENE.nfld, or make one")
        return self.current

    def add(self, name: str, scene: Scene) -> str:
        """Puts a scene into the list and returns its name there, which no other scene has."""
        with self._lock:
            number, free = 2, name
            while free in self.scenes or free == NONE:
                free, number = f"{name} ({number})", number + 1
            self.scenes[free] = ShownScene(free, scene)
            self.chosen.options = tuple(self.scenes)
        return free

    def remove(self, name: str) -> None:
        """Takes a scene out of the list, and out of memory."""
        with self._lock:
            self.scenes.pop(name, None)
            self._seen = None
            self.chosen.options = tuple(self.scenes) or (NONE,)
        self.choose(self.chosen.value)

    def choose(self, name: str, *, move: bool = True) -> None:
        """Shows a scene of the list; names that are not in it change nothing.

        Args:
            move: whether pages begin to look at it anew; else they stay where they are.
        """
        if name in self.scenes:
            self.chosen.value = name
            scene = self.scenes[name].scene
            self.view_panel.show(scene)
            begin, start = first_camera(scene), self.server.initial_camera
            start.position = begin.centers.double().cpu().numpy()
            start.look_at = (begin.centers + AHEAD * begin.forward).double().cpu().numpy()
            start.fov = vertical_fov(begin)
            if move:
                if self.paint_panel is not None:
                    self.paint_panel.painting.value = False
                for view in list(self.views.values()):
                    place_camera(view.client.camera, begin)
        self.redraw()

    def redraw(self) -> None:
        """All pages draw anew."""
        for view in list(self.views.values()):
            view.wish()

    def set_look(self, **changes: Any) -> None:
        """Looks at scenes in another way."""
        self.look = replace(self.look, **changes)
        self.redraw()

    def seen(self) -> tuple[Renderer, Look] | None:
        """What pages draw: the chosen scene, as it is looked at."""
        shown, look = self.current, self.look
        if shown is None:
            return None
        kept = self._seen
        same = kept is not None and kept[0] is shown and kept[1].clip == look.clip and kept[1].backdrop == look.backdrop
        if not same:
            kept = self._seen = (shown, look, shown.seen(look))
        assert kept is not None
        return kept[2], look

    def say(self, text: str) -> None:
        """One line for all pages."""
        with suppress(RuntimeError):  # the server ended meanwhile
            self.status.value = text

    def told(self, action: Callable[[Any], object]) -> Callable[[Any], None]:
        """What a panel does, with what a user got wrong shown on the page in one line."""

        @wraps(action)
        def act(event: Any) -> None:
            try:
                action(event)
            except FAILURES as error:
                text = " ".join(str(error).split()) or type(error).__name__
                self.say(text)
                if event is not None and event.client is not None:
                    event.client.add_notification("This cannot be done", text, color="red", auto_close_seconds=8)

        return act

    def told_in_order(self, action: Callable[[Any], object]) -> Callable[[Any], Coroutine[Any, Any, None]]:
        """The same for events that must not overtake each other, as those of a stroke: viser awaits coroutines."""
        act = self.told(action)

        async def act_in_order(event: Any) -> None:
            act(event)

        return act_in_order

    def close(self) -> None:
        """Ends the server; tasks stop at their next step."""
        self.tasks.cancel()
        self.tasks.wait(GRACE)
        views = [*self.views.values(), *self._leaving]
        for view in views:
            view.close()
        for view in views:
            view.wait(GRACE)
        self.server.stop()

    def _tell(self, share: float | None) -> None:
        with suppress(RuntimeError):  # the server ended meanwhile
            self.bar.visible = self.stop.visible = share is not None
            self.bar.value = 0 if share is None else round(100 * share)

    def _greet(self, client: "viser.ClientHandle") -> None:
        if self.current is not None:
            place_camera(client.camera, first_camera(self.current.scene))
        self.views[client.client_id] = LiveView(client, self.seen, self._turn)

    def _forget(self, client: "viser.ClientHandle") -> None:
        view = self.views.pop(client.client_id, None)
        if view is not None:
            view.close()
            self._leaving = [*(other for other in self._leaving if other.drawing), view]


def open_server(host: str, port: int, origins: Sequence[str] = ()) -> "viser.ViserServer":
    """A server at just this port; viser alone would take the next one that is free."""
    try:
        import viser
    except ImportError as error:
        raise ImportError("the viewer needs viser: pip install 'nfldm3d[viewer]'") from error
    if port:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise ValueError(
                    f"port {port} cannot be used ({error.strerror}); choose another with --port"
                ) from error
            raise ValueError(f"{host} is no address of this machine ({error.strerror}); leave --host out") from error
    warnings.filterwarnings("ignore", LATE)  # pages close while frames are drawn for them
    with same_origin_only(host, origins), redirect_stdout(io.StringIO()):  # viser and rich print
        server = viser.ViserServer(host=host, port=port, verbose=False)
    server.request_share_url = lambda verbose=False: None  # a page could ask for a tunnel that makes it public
    if port and server.get_port() != port:
        server.stop()
        raise ValueError(f"port {port} is in use; choose another with --port")
    return server
