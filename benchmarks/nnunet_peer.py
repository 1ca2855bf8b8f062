"""nnU-Net's side of nnunet.py: plan, preprocess, train for some minutes and predict, in an environment of its own.

python nnunet_peer.py ROOT DATASET MINUTES

Its own planner, network, loss, augmentation, optimizer and schedule; only the length of the schedule is fitted to the minutes,
from the time of a few steps at the start, and validation during training is one patch an epoch, so that minutes go into steps.
"""

import copy
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

ROOT, NAME, MINUTES = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
for variable, folder in (("nnUNet_raw", "raw"), ("nnUNet_preprocessed", "preprocessed"), ("nnUNet_results", "results")):
    (ROOT / folder).mkdir(parents=True, exist_ok=True)
    os.environ[variable] = str(ROOT / folder)

import torch  # noqa: E402 - nnU-Net reads its folders when it is imported
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess  # noqa: E402
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402

CONFIGURATION, PLANS = "3d_fullres", "nnUNetPlans"
CALIBRATION_STEPS, EPOCH_STEPS = 8, 10
CORES = len(os.sched_getaffinity(0))


class Timed(nnUNetTrainer):
    """Trains for some minutes."""

    def run_training(self):  # noqa: ANN201 - nnU-Net's own signature
        self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = EPOCH_STEPS, 1
        self.on_train_start()
        before = copy.deepcopy(self.network.state_dict()), copy.deepcopy(self.optimizer.state_dict())
        self.network.train()
        self.train_step(next(self.dataloader_train))
        began = time.monotonic()
        for _ in range(CALIBRATION_STEPS):
            self.train_step(next(self.dataloader_train))
        seconds = (time.monotonic() - began) / CALIBRATION_STEPS
        self.network.load_state_dict(before[0])
        self.optimizer.load_state_dict(before[1])
        self.num_epochs = max(1, round(60 * MINUTES / seconds / (EPOCH_STEPS + 0.5)))
        self.lr_scheduler = PolyLRScheduler(self.optimizer, self.initial_lr, self.num_epochs)
        began = time.monotonic()
        for epoch in range(self.num_epochs):
            self.on_epoch_start()
            self.on_train_epoch_start()
            outputs = [self.train_step(next(self.dataloader_train)) for _ in range(EPOCH_STEPS)]
            self.on_train_epoch_end(outputs)
            with torch.no_grad():
                self.on_validation_epoch_start()
                self.on_validation_epoch_end([self.validation_step(next(self.dataloader_val))])
            self.on_epoch_end()
            self.steps, self.minutes = EPOCH_STEPS * (epoch + 1), (time.monotonic() - began) / 60
            if self.minutes > 1.05 * MINUTES:
                break
        self.on_train_end()


def main() -> None:
    number = int(NAME[7:10])
    if not (ROOT / "preprocessed" / NAME / f"{PLANS}.json").is_file():
        extract_fingerprints([number], num_processes=CORES)
        plan_experiments([number])
        preprocess([number], configurations=[CONFIGURATION], num_processes=[CORES])
    torch.set_num_threads(CORES)
    plans = json.loads((ROOT / "preprocessed" / NAME / f"{PLANS}.json").read_text()) | {"continue_training": False}
    told = json.loads((ROOT / "raw" / NAME / "dataset.json").read_text())
    trainer = Timed(plans, CONFIGURATION, "all", told, device=torch.device("cpu"))
    trainer.run_training()
    predict(trainer, told)
    planned = trainer.configuration_manager
    said = {"version": version("nnunetv2"), "minutes": trainer.minutes, "steps": trainer.steps}
    said |= {"patch": [*map(int, planned.patch_size)], "batch": planned.batch_size}
    (ROOT / "said.json").write_text(json.dumps(said))


def predict(trainer: Timed, told: dict[str, object]) -> None:
    """The test cases, one after the other, with mirroring."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    trainer.set_deep_supervision_enabled(enabled=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        told,
        "nnUNetTrainer",
        trainer.inference_allowed_mirroring_axes,
    )
    reader = trainer.plans_manager.image_reader_writer_class()
    (ROOT / "predicted").mkdir(exist_ok=True)
    for path in sorted((ROOT / "raw" / NAME / "imagesTs").iterdir()):
        image, properties = reader.read_images([str(path)])
        answer = predictor.predict_single_npy_array(image, properties)
        reader.write_seg(answer, str(ROOT / "predicted" / path.name.replace("_0000", "")), properties)


if __name__ == "__main__":
    main()
