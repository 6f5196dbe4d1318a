"""Every kind of job: its parameters and its function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from MedEnhanceLib.jobs.kinds.blend import BlendParams, run_blend
from MedEnhanceLib.jobs.kinds.compare import CompareParams, run_compare
from MedEnhanceLib.jobs.kinds.compress import (
    CompressParams,
    DecompressParams,
    EstimateParams,
    RecoverParams,
    run_compress,
    run_decompress,
    run_estimate,
    run_recover,
)
from MedEnhanceLib.jobs.kinds.deidentify import DeidentifyParams, run_deidentify
from MedEnhanceLib.jobs.kinds.demo import DemoParams, run_demo
from MedEnhanceLib.jobs.kinds.distill import (
    DistillEstimateParams,
    DistillParams,
    DistillStatusParams,
    run_distill,
    run_distill_estimate,
    run_distill_status,
)
from MedEnhanceLib.jobs.kinds.enhance import EnhanceParams, run_enhance
from MedEnhanceLib.jobs.kinds.evaluate import EvaluateParams, run_evaluate
from MedEnhanceLib.jobs.kinds.installation import DoctorParams, ModelsParams, run_doctor, run_models
from MedEnhanceLib.jobs.kinds.ping import PingParams, run_ping
from MedEnhanceLib.jobs.kinds.segment import SegmentParams, run_segment
from MedEnhanceLib.jobs.kinds.series import ExportParams, SeriesParams, run_export, run_series
from MedEnhanceLib.jobs.kinds.train import TrainParams, run_train
from MedEnhanceLib.jobs.kinds.volumes import (
    ConvertParams,
    DegradeParams,
    InspectParams,
    run_convert,
    run_degrade,
    run_inspect,
)
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.runtime.progress import Monitor


@dataclass(frozen=True)
class JobKind:
    """params: the dataclass of the parameters; run: the function that takes one and a Monitor."""

    params: type[Any]
    run: Callable[[Any, Monitor], Result]


JOBS: dict[str, JobKind] = {
    "enhance": JobKind(EnhanceParams, run_enhance),
    "blend": JobKind(BlendParams, run_blend),
    "segment": JobKind(SegmentParams, run_segment),
    "compress": JobKind(CompressParams, run_compress),
    "estimate": JobKind(EstimateParams, run_estimate),
    "decompress": JobKind(DecompressParams, run_decompress),
    "recover": JobKind(RecoverParams, run_recover),
    "degrade": JobKind(DegradeParams, run_degrade),
    "convert": JobKind(ConvertParams, run_convert),
    "inspect": JobKind(InspectParams, run_inspect),
    "series": JobKind(SeriesParams, run_series),
    "export": JobKind(ExportParams, run_export),
    "deidentify": JobKind(DeidentifyParams, run_deidentify),
    "train": JobKind(TrainParams, run_train),
    "distill": JobKind(DistillParams, run_distill),
    "distill-status": JobKind(DistillStatusParams, run_distill_status),
    "compare": JobKind(CompareParams, run_compare),
    "distill-estimate": JobKind(DistillEstimateParams, run_distill_estimate),
    "evaluate": JobKind(EvaluateParams, run_evaluate),
    "demo": JobKind(DemoParams, run_demo),
    "models": JobKind(ModelsParams, run_models),
    "doctor": JobKind(DoctorParams, run_doctor),
    "ping": JobKind(PingParams, run_ping),
}
