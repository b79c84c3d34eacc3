"""What MMSegmentation published for its configs: scores of its own trainings, none of them reproduced here.

Read from the `metafile.yaml` of 1.2.2's FCN, PSPNet, DeepLabV3, DeepLabV3+, UPerNet, U-Net and SegFormer. Percent on
the validation split, one scale, no flip; then with scales and flip where that is published. For the vessel data sets
it is the Dice score of the vessels. Four rows stand under another config's name there; the file of weights tells whose
they are: deeplabv3plus_r101-d8 80k on ADE20K, both deeplabv3plus on pascal-context (r101-d8, not r50-d8), and
pspnet_r50-d32.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A published score, in percent."""

    score: float
    """One scale, no flip."""
    multi_scale: float | None
    """Several scales and flip; None where it is not published."""
    metric: str = "mIoU"
    """mIoU, or Dice of the vessels."""


WALK_THROUGH = "pspnet_r101-d8_4xb2-80k_cityscapes-512x1024"
WALK_THROUGH_SCORE = (
    77.94  # the log of "Introduction to Semantic Segmentation using MMSegmentation" (May 2024)
)

TABLE = """
fcn_r50-d8_4xb2-40k_cityscapes-512x1024 72.25 73.36
fcn_r101-d8_4xb2-40k_cityscapes-512x1024 75.45 76.58
fcn_r50-d8_4xb2-40k_cityscapes-769x769 71.47 72.54
fcn_r101-d8_4xb2-40k_cityscapes-769x769 73.93 75.14
fcn_r18-d8_4xb2-80k_cityscapes-512x1024 71.11 72.91
fcn_r50-d8_4xb2-80k_cityscapes-512x1024 73.61 74.24
fcn_r101-d8_4xb2-80k_cityscapes-512x1024 75.13 75.94
fcn_r101-d8_4xb2-amp-80k_cityscapes-512x1024 76.80
fcn_r18-d8_4xb2-80k_cityscapes-769x769 70.80 73.16
fcn_r50-d8_4xb2-80k_cityscapes-769x769 72.64 73.32
fcn_r101-d8_4xb2-80k_cityscapes-769x769 75.52 76.61
fcn_r18b-d8_4xb2-80k_cityscapes-512x1024 70.24 72.77
fcn_r50b-d8_4xb2-80k_cityscapes-512x1024 75.65 77.59
fcn_r101b-d8_4xb2-80k_cityscapes-512x1024 77.37 78.77
fcn_r18b-d8_4xb2-80k_cityscapes-769x769 69.66 72.07
fcn_r50b-d8_4xb2-80k_cityscapes-769x769 73.83 76.60
fcn_r101b-d8_4xb2-80k_cityscapes-769x769 77.02 78.67
fcn_r50-d8_4xb4-80k_ade20k-512x512 35.94 37.94
fcn_r101-d8_4xb4-80k_ade20k-512x512 39.61 40.83
fcn_r50-d8_4xb4-160k_ade20k-512x512 36.10 38.08
fcn_r101-d8_4xb4-160k_ade20k-512x512 39.91 41.40
fcn_r50-d8_4xb4-20k_voc12aug-512x512 67.08 69.94
fcn_r101-d8_4xb4-20k_voc12aug-512x512 71.16 73.57
fcn_r50-d8_4xb4-40k_voc12aug-512x512 66.97 69.04
fcn_r101-d8_4xb4-40k_voc12aug-512x512 69.91 72.38
fcn_r101-d8_4xb4-40k_pascal-context-480x480 44.43 45.63
fcn_r101-d8_4xb4-80k_pascal-context-480x480 44.13 45.26
fcn_r101-d8_4xb4-40k_pascal-context-59-480x480 48.42 50.40
fcn_r101-d8_4xb4-80k_pascal-context-59-480x480 49.35 51.38
pspnet_r50-d8_4xb2-40k_cityscapes-512x1024 77.85 79.18
pspnet_r101-d8_4xb2-40k_cityscapes-512x1024 78.34 79.74
pspnet_r50-d8_4xb2-40k_cityscapes-769x769 78.26 79.88
pspnet_r101-d8_4xb2-40k_cityscapes-769x769 79.08 80.28
pspnet_r18-d8_4xb2-80k_cityscapes-512x1024 74.87 76.04
pspnet_r50-d8_4xb2-80k_cityscapes-512x1024 78.55 79.79
pspnet_r101-d8_4xb2-80k_cityscapes-512x1024 79.76 81.01
pspnet_r101-d8_4xb2-amp-80k_cityscapes-512x1024 79.46
pspnet_r18-d8_4xb2-80k_cityscapes-769x769 75.90 77.86
pspnet_r50-d8_4xb2-80k_cityscapes-769x769 79.59 80.69
pspnet_r101-d8_4xb2-80k_cityscapes-769x769 79.77 81.06
pspnet_r18b-d8_4xb2-80k_cityscapes-512x1024 74.23 75.79
pspnet_r50b-d8_4xb2-80k_cityscapes-512x1024 78.22 79.46
pspnet_r101b-d8_4xb2-80k_cityscapes-512x1024 79.69 80.79
pspnet_r18b-d8_4xb2-80k_cityscapes-769x769 74.92 76.90
pspnet_r50b-d8_4xb2-80k_cityscapes-769x769 78.50 79.96
pspnet_r101b-d8_4xb2-80k_cityscapes-769x769 78.87 80.04
pspnet_r50-d32_4xb2-80k_cityscapes-512x1024 73.88 76.85
pspnet_r50b-d32_4xb2-80k_cityscapes-512x1024 72.61 75.51
pspnet_r50-d8_4xb4-80k_ade20k-512x512 41.13 41.94
pspnet_r101-d8_4xb4-80k_ade20k-512x512 43.57 44.35
pspnet_r50-d8_4xb4-160k_ade20k-512x512 42.48 43.44
pspnet_r101-d8_4xb4-160k_ade20k-512x512 44.39 45.35
pspnet_r50-d8_4xb4-20k_voc12aug-512x512 76.78 77.61
pspnet_r101-d8_4xb4-20k_voc12aug-512x512 78.47 79.25
pspnet_r50-d8_4xb4-40k_voc12aug-512x512 77.29 78.48
pspnet_r101-d8_4xb4-40k_voc12aug-512x512 78.52 79.57
pspnet_r101-d8_4xb4-40k_pascal-context-480x480 46.60 47.78
pspnet_r101-d8_4xb4-80k_pascal-context-480x480 46.03 47.15
pspnet_r101-d8_4xb4-40k_pascal-context-59-480x480 52.02 53.54
pspnet_r101-d8_4xb4-80k_pascal-context-59-480x480 52.47 53.99
pspnet_r50-d8_4xb4-20k_coco-stuff10k-512x512 35.69 36.62
pspnet_r101-d8_4xb4-20k_coco-stuff10k-512x512 37.26 38.52
pspnet_r50-d8_4xb4-40k_coco-stuff10k-512x512 36.33 37.24
pspnet_r101-d8_4xb4-40k_coco-stuff10k-512x512 37.76 38.86
pspnet_r50-d8_4xb4-80k_coco-stuff164k-512x512 38.80 39.19
pspnet_r101-d8_4xb4-80k_coco-stuff164k-512x512 40.34 40.79
pspnet_r50-d8_4xb4-160k_coco-stuff164k-512x512 39.64 39.97
pspnet_r101-d8_4xb4-160k_coco-stuff164k-512x512 41.28 41.66
pspnet_r50-d8_4xb4-320k_coco-stuff164k-512x512 40.53 40.75
pspnet_r101-d8_4xb4-320k_coco-stuff164k-512x512 41.95 42.42
pspnet_r18-d8_4xb4-80k_loveda-512x512 48.62 47.57
pspnet_r50-d8_4xb4-80k_loveda-512x512 50.46 50.19
pspnet_r101-d8_4xb4-80k_loveda-512x512 51.86 51.34
pspnet_r18-d8_4xb4-80k_potsdam-512x512 77.09 78.30
pspnet_r50-d8_4xb4-80k_potsdam-512x512 78.12 78.98
pspnet_r101-d8_4xb4-80k_potsdam-512x512 78.62 79.47
pspnet_r18-d8_4xb4-80k_vaihingen-512x512 71.46 73.36
pspnet_r50-d8_4xb4-80k_vaihingen-512x512 72.36 73.75
pspnet_r101-d8_4xb4-80k_vaihingen-512x512 72.61 74.18
pspnet_r18-d8_4xb4-80k_isaid-896x896 60.22 61.25
pspnet_r50-d8_4xb4-80k_isaid-896x896 65.36 66.48
deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024 79.09 80.45
deeplabv3_r101-d8_4xb2-40k_cityscapes-512x1024 77.12 79.61
deeplabv3_r50-d8_4xb2-40k_cityscapes-769x769 78.58 79.89
deeplabv3_r101-d8_4xb2-40k_cityscapes-769x769 79.27 80.11
deeplabv3_r18-d8_4xb2-80k_cityscapes-512x1024 76.70 78.27
deeplabv3_r50-d8_4xb2-80k_cityscapes-512x1024 79.32 80.57
deeplabv3_r101-d8_4xb2-80k_cityscapes-512x1024 80.20 81.21
deeplabv3_r101-d8_4xb2-amp-80k_cityscapes-512x1024 80.48
deeplabv3_r18-d8_4xb2-80k_cityscapes-769x769 76.60 78.26
deeplabv3_r50-d8_4xb2-80k_cityscapes-769x769 79.89 81.06
deeplabv3_r101-d8_4xb2-80k_cityscapes-769x769 79.67 80.81
deeplabv3_r101-d16-mg124_4xb2-40k_cityscapes-512x1024 76.71 78.63
deeplabv3_r101-d16-mg124_4xb2-80k_cityscapes-512x1024 78.36 79.84
deeplabv3_r18b-d8_4xb2-80k_cityscapes-512x1024 76.26 77.88
deeplabv3_r50b-d8_4xb2-80k_cityscapes-512x1024 79.63 80.98
deeplabv3_r101b-d8_4xb2-80k_cityscapes-512x1024 80.01 81.21
deeplabv3_r18b-d8_4xb2-80k_cityscapes-769x769 75.63 77.51
deeplabv3_r50b-d8_4xb2-80k_cityscapes-769x769 78.80 80.27
deeplabv3_r101b-d8_4xb2-80k_cityscapes-769x769 79.41 80.73
deeplabv3_r50-d8_4xb4-80k_ade20k-512x512 42.42 43.28
deeplabv3_r101-d8_4xb4-80k_ade20k-512x512 44.08 45.19
deeplabv3_r50-d8_4xb4-160k_ade20k-512x512 42.66 44.09
deeplabv3_r101-d8_4xb4-160k_ade20k-512x512 45.00 46.66
deeplabv3_r50-d8_4xb4-20k_voc12aug-512x512 76.17 77.42
deeplabv3_r101-d8_4xb4-20k_voc12aug-512x512 78.70 79.95
deeplabv3_r50-d8_4xb4-40k_voc12aug-512x512 77.68 78.78
deeplabv3_r101-d8_4xb4-40k_voc12aug-512x512 77.92 79.18
deeplabv3_r101-d8_4xb4-40k_pascal-context-480x480 46.55 47.81
deeplabv3_r101-d8_4xb4-80k_pascal-context-480x480 46.42 47.53
deeplabv3_r101-d8_4xb4-40k_pascal-context-59-480x480 52.61 54.28
deeplabv3_r101-d8_4xb4-80k_pascal-context-59-480x480 52.46 54.09
deeplabv3_r50-d8_4xb4-20k_coco-stuff10k-512x512 34.66 36.08
deeplabv3_r101-d8_4xb4-20k_coco-stuff10k-512x512 37.30 38.42
deeplabv3_r50-d8_4xb4-40k_coco-stuff10k-512x512 35.73 37.09
deeplabv3_r101-d8_4xb4-40k_coco-stuff10k-512x512 37.81 38.80
deeplabv3_r50-d8_4xb4-80k_coco-stuff164k-512x512 39.38 40.03
deeplabv3_r101-d8_4xb4-80k_coco-stuff164k-512x512 40.87 41.50
deeplabv3_r50-d8_4xb4-160k_coco-stuff164k-512x512 41.09 41.69
deeplabv3_r101-d8_4xb4-160k_coco-stuff164k-512x512 41.82 42.49
deeplabv3_r50-d8_4xb4-320k_coco-stuff164k-512x512 41.37 42.22
deeplabv3_r101-d8_4xb4-320k_coco-stuff164k-512x512 42.61 43.42
deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024 79.61 81.01
deeplabv3plus_r101-d8_4xb2-40k_cityscapes-512x1024 80.21 81.82
deeplabv3plus_r50-d8_4xb2-40k_cityscapes-769x769 78.97 80.46
deeplabv3plus_r101-d8_4xb2-40k_cityscapes-769x769 79.46 80.50
deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024 76.89 78.76
deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024 80.09 81.13
deeplabv3plus_r101-d8_4xb2-80k_cityscapes-512x1024 80.97 82.03
deeplabv3plus_r101-d8_4xb2-amp-80k_cityscapes-512x1024 80.46
deeplabv3plus_r18-d8_4xb2-80k_cityscapes-769x769 76.26 77.91
deeplabv3plus_r50-d8_4xb2-80k_cityscapes-769x769 79.83 81.48
deeplabv3plus_r101-d8_4xb2-80k_cityscapes-769x769 80.65 81.47
deeplabv3plus_r101-d16-mg124_4xb2-40k_cityscapes-512x1024 79.09 80.36
deeplabv3plus_r101-d16-mg124_4xb2-80k_cityscapes-512x1024 79.90 81.33
deeplabv3plus_r18b-d8_4xb2-80k_cityscapes-512x1024 75.87 77.52
deeplabv3plus_r50b-d8_4xb2-80k_cityscapes-512x1024 80.28 81.44
deeplabv3plus_r101b-d8_4xb2-80k_cityscapes-512x1024 80.16 81.41
deeplabv3plus_r18b-d8_4xb2-80k_cityscapes-769x769 76.36 78.24
deeplabv3plus_r50b-d8_4xb2-80k_cityscapes-769x769 79.41 80.56
deeplabv3plus_r101b-d8_4xb2-80k_cityscapes-769x769 79.88 81.46
deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512 42.72 43.75
deeplabv3plus_r101-d8_4xb4-80k_ade20k-512x512 44.60 46.06
deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512 43.95 44.93
deeplabv3plus_r101-d8_4xb4-160k_ade20k-512x512 45.47 46.35
deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512 75.93 77.50
deeplabv3plus_r101-d8_4xb4-20k_voc12aug-512x512 77.22 78.59
deeplabv3plus_r50-d8_4xb4-40k_voc12aug-512x512 76.81 77.57
deeplabv3plus_r101-d8_4xb4-40k_voc12aug-512x512 78.62 79.53
deeplabv3plus_r101-d8_4xb4-40k_pascal-context-480x480 47.30 48.47
deeplabv3plus_r101-d8_4xb4-80k_pascal-context-480x480 47.23 48.26
deeplabv3plus_r101-d8_4xb4-40k_pascal-context-59-480x480 52.86 54.54
deeplabv3plus_r101-d8_4xb4-80k_pascal-context-59-480x480 53.20 54.67
deeplabv3plus_r18-d8_4xb4-80k_loveda-512x512 50.28 50.47
deeplabv3plus_r50-d8_4xb4-80k_loveda-512x512 50.99 50.65
deeplabv3plus_r101-d8_4xb4-80k_loveda-512x512 51.47 51.32
deeplabv3plus_r18-d8_4xb4-80k_potsdam-512x512 77.09 78.44
deeplabv3plus_r50-d8_4xb4-80k_potsdam-512x512 78.33 79.27
deeplabv3plus_r101-d8_4xb4-80k_potsdam-512x512 78.70 79.47
deeplabv3plus_r18-d8_4xb4-80k_vaihingen-512x512 72.50 74.13
deeplabv3plus_r50-d8_4xb4-80k_vaihingen-512x512 73.97 75.05
deeplabv3plus_r101-d8_4xb4-80k_vaihingen-512x512 73.06 74.14
deeplabv3plus_r18-d8_4xb4-80k_isaid-896x896 61.35 62.61
deeplabv3plus_r50-d8_4xb4-80k_isaid-896x896 67.06 68.02
upernet_r50_4xb2-40k_cityscapes-512x1024 77.10 78.37
upernet_r101_4xb2-40k_cityscapes-512x1024 78.69 80.11
upernet_r50_4xb2-40k_cityscapes-769x769 77.98 79.70
upernet_r101_4xb2-40k_cityscapes-769x769 79.03 80.77
upernet_r50_4xb2-80k_cityscapes-512x1024 78.19 79.19
upernet_r101_4xb2-80k_cityscapes-512x1024 79.40 80.46
upernet_r50_4xb2-80k_cityscapes-769x769 79.39 80.92
upernet_r101_4xb2-80k_cityscapes-769x769 80.10 81.49
upernet_r50_4xb4-80k_ade20k-512x512 40.70 41.81
upernet_r101_4xb4-80k_ade20k-512x512 42.91 43.96
upernet_r50_4xb4-160k_ade20k-512x512 42.05 42.78
upernet_r101_4xb4-160k_ade20k-512x512 43.82 44.85
upernet_r50_4xb4-20k_voc12aug-512x512 74.82 76.35
upernet_r101_4xb4-20k_voc12aug-512x512 77.10 78.29
upernet_r50_4xb4-40k_voc12aug-512x512 75.92 77.44
upernet_r101_4xb4-40k_voc12aug-512x512 77.43 78.56
segformer_mit-b0_8xb2-160k_ade20k-512x512 37.41 38.34
segformer_mit-b1_8xb2-160k_ade20k-512x512 40.97 42.54
segformer_mit-b2_8xb2-160k_ade20k-512x512 45.58 47.03
segformer_mit-b3_8xb2-160k_ade20k-512x512 47.82 48.81
segformer_mit-b4_8xb2-160k_ade20k-512x512 48.46 49.76
segformer_mit-b5_8xb2-160k_ade20k-512x512 49.13 50.22
segformer_mit-b5_8xb2-160k_ade20k-640x640 49.62 50.36
segformer_mit-b0_8xb1-160k_cityscapes-1024x1024 76.54 78.22
segformer_mit-b1_8xb1-160k_cityscapes-1024x1024 78.56 79.73
segformer_mit-b2_8xb1-160k_cityscapes-1024x1024 81.08 82.18
segformer_mit-b3_8xb1-160k_cityscapes-1024x1024 81.94 83.14
segformer_mit-b4_8xb1-160k_cityscapes-1024x1024 81.89 83.38
segformer_mit-b5_8xb1-160k_cityscapes-1024x1024 82.25 83.48
unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024 69.10 71.05
unet-s5-d16_fcn_4xb4-40k_drive-64x64 78.67 Dice
unet-s5-d16_fcn_4xb4-ce-1.0-dice-3.0-40k_drive-64x64 79.32 Dice
unet-s5-d16_pspnet_4xb4-40k_drive-64x64 78.62 Dice
unet-s5-d16_pspnet_4xb4-ce-1.0-dice-3.0-40k_drive-64x64 79.42 Dice
unet-s5-d16_deeplabv3_4xb4-40k_drive-64x64 78.69 Dice
unet-s5-d16_deeplabv3_4xb4-ce-1.0-dice-3.0-40k_drive-64x64 79.56 Dice
unet-s5-d16_fcn_4xb4-40k_stare-128x128 81.02 Dice
unet-s5-d16_fcn_4xb4-ce-1.0-dice-3.0-40k_stare-128x128 82.70 Dice
unet-s5-d16_pspnet_4xb4-40k_stare-128x128 81.22 Dice
unet-s5-d16_pspnet_4xb4-ce-1.0-dice-3.0-40k_stare-128x128 82.84 Dice
unet-s5-d16_deeplabv3_4xb4-40k_stare-128x128 80.93 Dice
unet-s5-d16_deeplabv3_4xb4-ce-1.0-dice-3.0-40k_stare-128x128 82.71 Dice
unet-s5-d16_fcn_4xb4-40k_chase-db1-128x128 80.24 Dice
unet-s5-d16_fcn_4xb4-ce-1.0-dice-3.0-40k_chase-db1-128x128 80.40 Dice
unet-s5-d16_pspnet_4xb4-40k_chase-db1-128x128 80.36 Dice
unet-s5-d16_pspnet_4xb4-ce-1.0-dice-3.0-40k_chase-db1-128x128 80.28 Dice
unet-s5-d16_deeplabv3_4xb4-40k_chase-db1-128x128 80.47 Dice
unet-s5-d16_deeplabv3_4xb4-ce-1.0-dice-3.0-40k_chase-db1-128x128 80.37 Dice
unet-s5-d16_fcn_4xb4-40k_hrf-256x256 79.45 Dice
unet-s5-d16_fcn_4xb4-ce-1.0-dice-3.0-40k_hrf-256x256 80.87 Dice
unet-s5-d16_pspnet_4xb4-40k_hrf-256x256 80.07 Dice
unet-s5-d16_pspnet_4xb4-ce-1.0-dice-3.0-40k_hrf-256x256 80.96 Dice
unet-s5-d16_deeplabv3_4xb4-40k_hrf-256x256 80.21 Dice
unet-s5-d16_deeplabv3_4xb4-ce-1.0-dice-3.0-40k_hrf-256x256 80.71 Dice
"""


def _read(line: str) -> tuple[str, Score]:
    name, score, *rest = line.split()
    if rest == ["Dice"]:
        return name, Score(float(score), None, "Dice")
    return name, Score(float(score), float(rest[0]) if rest else None)


PUBLISHED: Mapping[str, Score] = dict(map(_read, TABLE.strip().splitlines()))
"""Config name -> what MMSegmentation published for it."""


def told(name: str) -> str:
    """Return what is published for a config in one clause; that nothing is where nothing is."""
    if name not in PUBLISHED:
        return "nothing published under this name"
    one = PUBLISHED[name]
    more = [f"{one.multi_scale:.2f} with scales and flip"] if one.multi_scale is not None else []
    more += [f"{WALK_THROUGH_SCORE} in the walk-through's log"] if name == WALK_THROUGH else []
    return f"{one.score:.2f} {one.metric} published" + (f" ({', '.join(more)})" if more else "")
