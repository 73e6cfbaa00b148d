# SPDX-License-Identifier: Apache-2.0
"""Map names from papers and other projects to our names of losses, networks and settings."""

from __future__ import annotations

_DEPTHS = (18, 34, 50, 100, 152, 200)

_LOSSES: dict[str, tuple[str, ...]] = {
    # CosFace is also called Additive Margin Softmax (Wang et al.) and LMCL.
    **dict.fromkeys(("am", "amsoftmax", "additivemarginsoftmax", "lmcl", "cos"), ("cosface",)),
    **dict.fromkeys(("largemargincosine", "cosinemargin", "cosmargin"), ("cosface",)),
    **dict.fromkeys(("aam", "aamsoftmax", "additiveangularmargin", "arc"), ("arcface",)),
    **dict.fromkeys(("arcmargin", "arcmarginproduct", "arcsoftmax"), ("arcface",)),
    "angularsoftmax": ("a_softmax",),
    **dict.fromkeys(("sphere", "sphereproduct"), ("sphereface",)),
    **dict.fromkeys(("nsoftmax", "normsoftmax", "normalizedsoftmax"), ("normface",)),
    **dict.fromkeys(("marginsoftmax", "combinedmargin", "cmsoftmax"), ("combined",)),
    **dict.fromkeys(("svx", "svxsoftmax", "mvsoftmax", "mvamsoftmax"), ("sv_softmax",)),
    **dict.fromkeys(("subcenter", "subcentre", "subcentrearcface"), ("sub_center_arcface",)),
    "curricular": ("curricularface",),
    **dict.fromkeys(("elastic", "elasticarc", "elasticarcface"), ("elasticface",)),
    **dict.fromkeys(("mag", "maglinear"), ("magface",)),
    "ada": ("adaface",),
    **dict.fromkeys(("fixedadacos", "dynamicadacos"), ("adacos",)),
    **dict.fromkeys(("ce", "crossentropy", "softmaxcrossentropy"), ("softmax",)),
    **dict.fromkeys(("l2constrained", "l2constrainedsoftmax"), ("l2_softmax",)),
    **dict.fromkeys(("lgaussianmixture", "gaussianmixture"), ("lgm",)),
    "centre": ("center",),
    **dict.fromkeys(("atriplet", "arctriplet"), ("angular_triplet",)),
    **dict.fromkeys(("facenet", "tripletsemihard"), ("triplet",)),
    **dict.fromkeys(("npairs", "npairmc"), ("n_pair",)),
    "docface": ("mps",),
}

_MISSING_LOSSES = """
airface dsoftmax elasticcos elasticcosface gsoftmax hsoftmax largemarginsoftmax liarcface lsoftmax
npcface qmagface sphereface2 spherefacer uniface vsoftmax
""".split()
"""Losses that this project lacks.  Their names resemble those of losses that it has; without this
list, the user would get the suggestion of a different loss."""

_NETS: dict[str, tuple[str, ...]] = {
    # InsightFace calls MobileFaceNet y1 or y2 in its MXNet code and mbf in arcface_torch.
    **dict.fromkeys(("mfn", "fmobilefacenet", "mobileface"), ("mobilefacenet",)),
    "y": ("mobilefacenet", "mobilefacenet_y2"),
    **dict.fromkeys(("getmbf", "mbfscale2"), ("mbf",)),
    **dict.fromkeys(("getmbflarge", "mbflarge", "mbfl"), ("mbf_large",)),
    **dict.fromkeys(("getmobilefacenet", "semobilefacenet"), ("gluonfr_mobilefacenet",)),
    **{
        f"{name}{depth}": (f"iresnet{depth}",)
        for name in ("ir", "resnet", "fresnet")
        for depth in _DEPTHS
    },
    **{f"lresnet{depth}eir": (f"iresnet{depth}",) for depth in _DEPTHS},
    # CVLface and AdaFace count one layer more than InsightFace in the same network.
    **dict.fromkeys(("r101", "ir101"), ("iresnet100",)),
    **dict.fromkeys(
        ("iresnet", "resnet", "ir", "fresnet"), tuple(f"iresnet{depth}" for depth in _DEPTHS)
    ),
    # InsightFace's networks with squeeze-and-excitation are iresnets with se=True.
    **{
        f"{name}{depth}": (f"iresnet{depth}",)
        for name in ("irse", "seiresnet", "iresnetse")
        for depth in _DEPTHS
    },
    **dict.fromkeys(("mobilenet", "mobilenetv1", "fmobilenet"), ("mobilenet_v1",)),
    **dict.fromkeys(("fmnasnet", "mnasneta1", "mnasnetb1"), ("mnasnet",)),
    **dict.fromkeys(
        ("densenet", "fdensenet"), tuple(f"densenet{depth}" for depth in (121, 161, 169, 201))
    ),
    **{f"d{depth}": (f"densenet{depth}",) for depth in (121, 161)},
    **dict.fromkeys(("varg", "vargnet"), ("vargfacenet",)),
    **dict.fromkeys(("seresnet", "senet"), ("seresnet18", "seresnet50", "seresnet101")),
    **{
        f"{name}{depth}{version}": (f"seresnet{depth}",)
        for name in ("lseresnet", "seresnet")
        for depth in (18, 50, 101)
        for version in ("v2", "")
        if (name, version) != ("seresnet", "")
    },
    **dict.fromkeys(
        ("attention", "attentionnet", "attentionfacenet", "residualattention"),
        ("attention56", "attention92"),
    ),
    **{
        f"{name}{depth}": (f"attention{depth}",)
        for name in ("attentionfacenet", "attentionnet")
        for depth in (56, 92)
    },
    **dict.fromkeys(("dpn", "fdpn"), tuple(f"dpn{depth}" for depth in (68, 92, 107, 131))),
    **dict.fromkeys(
        ("inceptionresnet", "irv2", "incresv2", "finceptionresnetv2"), ("inception_resnet_v2",)
    ),
    **dict.fromkeys(("ghostnetv1", "ghostfacenet", "ghostfacenets", "ghost"), ("ghostnet",)),
    **dict.fromkeys(
        ("mobilenetv3large", "mobilenetv3small", "mobilenetlarge", "mobilenetsmall"),
        ("mobilenet_v3",),
    ),
    **dict.fromkeys(("efficientnet", "effnet", "effnetb0"), ("efficientnet_b0",)),
    "vit": ("vit_t", "vit_s"),
    **dict.fromkeys(("vittiny", "vit_tiny"), ("vit_t",)),
    **dict.fromkeys(("vitsmall", "vit_small"), ("vit_s",)),
    # arcface_torch's names of vision transformers contain the drop path rate and the mask ratio.
    **{
        f"vit_{size}_dp005_mask{end}": (f"vit_{size}",)
        for size in "ts"
        for end in ("0", "_0", "_005")
    },
}

_MISSING_NETS = """
densenet264 dpn98 ghostnetv2 ghostnetv3 inceptionresnetv1 inceptionv4 m2 m025 mobilenetv2
mobilenetv4 n1 r2060 vargnetv2 vitb vitbase vitl vitlarge x1
""".split()
_MISSING_NETS += [
    f"vit_{size}_dp005_mask{end}" for size in ("b", "l") for end in ("0", "_0", "_005")
]
_MISSING_NETS += [f"efficientnetb{number}" for number in range(1, 8)]
_MISSING_NETS += [f"{name}{depth}" for name in ("resnext", "resnest") for depth in _DEPTHS]
"""Networks that this project lacks.  Their names resemble those of networks that it has; without
this list, the user would get the suggestion of a different network."""

_SETTINGS: dict[str, tuple[str, ...]] = {
    # Sections.
    **dict.fromkeys(("loss", "criterion", "classifier"), ("head",)),
    **dict.fromkeys(("network", "backbone", "model", "arch"), ("net",)),
    **dict.fromkeys(("dataset", "datasets", "input"), ("data",)),
    **dict.fromkeys(("optimizer", "optimiser", "solver"), ("optim",)),
    **dict.fromkeys(("training", "trainer"), ("train",)),
    **dict.fromkeys(("evaluation", "val", "validation", "test", "verification"), ("eval",)),
    # Settings of heads and nets.  loss_m1 and margin_a are names in InsightFace, margin_m and
    # margin_s are names in GluonFR.
    "margin": ("m2", "m3", "m1", "m"),
    **dict.fromkeys(("m", "margin_m"), ("m2", "m3", "m")),
    **dict.fromkeys(("lossm1", "margin_a"), ("m1",)),
    "lossm2": ("m2",),
    **dict.fromkeys(("lossm3", "margin_b"), ("m3",)),
    **dict.fromkeys(("s", "losss", "margin_s"), ("scale",)),
    **dict.fromkeys(("k", "subcenter"), ("sub_centers",)),
    **dict.fromkeys(("emb", "embsize", "embdim", "embeddingdim"), ("embedding_size",)),
    **dict.fromkeys(("featuredim", "featdim", "numfeatures"), ("embedding_size",)),
    **dict.fromkeys(("multiplier", "widthmultiplier", "netmultiplier"), ("width",)),
    **dict.fromkeys(("netse", "usese", "versionse", "squeezeexcitation"), ("se",)),
    **dict.fromkeys(("netunit", "versionunit", "residualunit"), ("unit",)),
    **dict.fromkeys(("netblocks", "layers"), ("blocks", "units")),
    **dict.fromkeys(("netoutput", "versionoutput", "fctype"), ("output",)),
    "densenetdropout": ("layer_dropout",),
    # Data.
    **dict.fromkeys(("rec", "path", "root", "recfile", "pathimgrec", "folder"), ("records",)),
    **dict.fromkeys(("batch", "bs", "perbatchsize", "batchsizeperrank"), ("batch_size",)),
    **dict.fromkeys(("classes", "numclass", "numids", "numidentities"), ("num_classes",)),
    **dict.fromkeys(("randmirror", "flip", "hflip", "horizontalflip"), ("mirror",)),
    **dict.fromkeys(("cutoff", "erasing"), ("cut_out",)),
    **dict.fromkeys(("color", "jitter", "colour", "colourjitter"), ("color_jitter",)),
    **dict.fromkeys(("bagsize", "tripletbagsize"), ("bag",)),
    **dict.fromkeys(("imagesperidentity", "imagesperid"), ("images_per_person",)),
    **dict.fromkeys(("numworkers", "nworkers"), ("workers",)),
    **dict.fromkeys(("numthreads", "nthreads"), ("threads",)),
    "gray": ("grey",),
    # Optimizer and schedule.
    **dict.fromkeys(("learningrate", "baselr", "initiallr"), ("lr",)),
    "wd": ("weight_decay",),
    "mom": ("momentum",),
    **dict.fromkeys(("lrsteps", "lrdecayepoch", "decayepoch", "lrepochs"), ("milestones",)),
    **dict.fromkeys(("gamma", "lrdecay", "factor"), ("decay",)),
    **dict.fromkeys(("scheduler", "lrschedule", "lrscheduler", "lrmode"), ("schedule",)),
    **dict.fromkeys(("warmupepochs", "warmupepoch", "warmupsteps"), ("warmup",)),
    **dict.fromkeys(("gradclip", "clip", "clipgradient", "maxnorm"), ("clip_norm",)),
    **dict.fromkeys(("endlr", "minlr", "etamin"), ("final_lr",)),
    # Values of optim.name and optim.schedule.
    "nesterov": ("nag",),
    **dict.fromkeys(("cosineannealing", "cosinelr"), ("cosine",)),
    **dict.fromkeys(("poly", "polylr"), ("polynomial",)),
    **dict.fromkeys(("multistep", "multisteplr", "steplr"), ("step",)),
    # Settings of the run, the training and the evaluation.
    **dict.fromkeys(("numepochs", "numepoch", "endepoch", "maxepochs"), ("epochs",)),
    **dict.fromkeys(("steps", "maxiter", "maxiters", "numsteps", "iterations"), ("max_steps",)),
    **dict.fromkeys(("ckpt", "weights", "checkpoint", "initweights"), ("pretrained",)),
    **dict.fromkeys(("frequent", "loginterval", "printfreq", "logfreq"), ("log_every",)),
    **dict.fromkeys(("saveevery", "saveinterval", "checkpointinterval"), ("checkpoint_every",)),
    **dict.fromkeys(("valtargets", "target", "targets", "valsets", "bins"), ("sets",)),
    **dict.fromkeys(("verbose", "evalevery", "evalinterval", "every"), ("every_steps",)),
    **dict.fromkeys(("output", "out", "outdir", "modelsdir", "prefix"), ("dir",)),
    **dict.fromkeys(("ctx", "gpus", "cuda"), ("device",)),
    **dict.fromkeys(("manualseed", "randomseed"), ("seed",)),
}

ALIASES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*_MISSING_LOSSES, *_MISSING_NETS), ()),
    **_NETS,
    **_SETTINGS,
}
"""Mapping from a name in other projects to the names of its counterparts here.

A key is in lower case.  A key without ``_`` also matches spellings of the name with ``_``, ``-``,
spaces and dots.  An empty tuple marks a name that has no counterpart here."""
for _name, _found in _LOSSES.items():
    ALIASES[_name] = (*_found, *ALIASES.get(_name, ()))
