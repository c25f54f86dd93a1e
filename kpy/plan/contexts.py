"""Named contexts that are files and no images: the step that has them, and stages that start from them (F08)."""

from kpy.dockerfile.forms import FormError
from kpy.dockerfile.model import Stage
from kpy.dockerfile.remotes import parse_git
from kpy.dockerfile.span import Span
from kpy.oci.config import ImageConfig, RuntimeConfig
from kpy.oci.platform import Platform
from kpy.plan.graph import Graph
from kpy.plan.model import ContextOp, CopyOp, CopySource, GitOp, HttpOp, ScratchOp
from kpy.plan.names import context_key
from kpy.plan.scope import Scope
from kpy.plan.state import StageState, initial_env, with_default_path


def files_step(graph: Graph, name: str, kind: str, value: str, span: Span) -> str:
    """The step with the files of a context of one of the kinds `FILES`."""
    if kind == "local":
        return graph.add(ContextOp(context_key(name)), name=f"load build context {name}", span=span)
    if kind == "http":
        return graph.add(HttpOp(value), name=f"load build context {name}", span=span)
    try:
        remote = parse_git(value)
    except FormError as error:
        raise span.error(f"the build context {name}: {error.message}", hint=error.hint) from error
    return graph.add(GitOp(remote, bool(remote.keep_git_dir)), name=f"load build context {name}: {remote.shown}", span=span)


def stage_of_files(graph: Graph, stage: Stage, name: str, files: str, platform: Platform) -> StageState:
    """A stage whose root file system is a context: an image of one layer and no configuration."""
    label, span = stage.label, stage.start.span
    scratch = graph.add(ScratchOp(), name="FROM scratch", stage=label, span=span)
    text = f"FROM {name}"
    step = graph.add(CopyOp("/", (CopySource(1, ("/",)),)), [scratch, files], name=text, stage=label, span=span)
    runtime = with_default_path(RuntimeConfig())
    base = ImageConfig(platform=platform)
    state = StageState(stage=stage, platform=platform, step=step, scope=Scope(initial_env(runtime)), runtime=runtime, base=base)
    state.note(text, layer=True)
    return state
