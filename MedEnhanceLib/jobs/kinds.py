"""Every kind of job: its parameters and its function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from MedEnhanceLib.jobs.blending import BlendParams, run_blend
from MedEnhanceLib.jobs.compression import (
    CompressParams,
    DecompressParams,
    EstimateParams,
    RecoverParams,
    run_compress,
    run_decompress,
    run_estimate,
    run_recover,
)
from MedEnhanceLib.jobs.deidentification import DeidentifyParams, run_deidentify
from MedEnhanceLib.jobs.demo import DemoParams, run_demo
from MedEnhanceLib.jobs.distillation import (
    DistillParams,
    DistillStatusParams,
    run_distill,
    run_distill_status,
)
from MedEnhanceLib.jobs.distillation_estimate import (
    DistillEstimateParams,
    run_distill_estimate,
)
from MedEnhanceLib.jobs.enhancement import EnhanceParams, run_enhance
from MedEnhanceLib.jobs.evaluation import EvaluateParams, run_evaluate
from MedEnhanceLib.jobs.installation import (
    DoctorParams,
    ModelsParams,
    run_doctor,
    run_models,
)
from MedEnhanceLib.jobs.ping import PingParams, run_ping
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.jobs.segmentation import SegmentParams, run_segment
from MedEnhanceLib.jobs.series import ExportParams, SeriesParams, run_export, run_series
from MedEnhanceLib.jobs.training import TrainParams, run_train
from MedEnhanceLib.jobs.volumes import (
    ConvertParams,
    DegradeParams,
    InspectParams,
    run_convert,
    run_degrade,
    run_inspect,
)
from MedEnhanceLib.progress import Monitor


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
    "distill-estimate": JobKind(DistillEstimateParams, run_distill_estimate),
    "evaluate": JobKind(EvaluateParams, run_evaluate),
    "demo": JobKind(DemoParams, run_demo),
    "models": JobKind(ModelsParams, run_models),
    "doctor": JobKind(DoctorParams, run_doctor),
    "ping": JobKind(PingParams, run_ping),
}
