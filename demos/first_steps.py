# %% [markdown]
# # First steps with textsam
#
# Run the file (`python demos/first_steps.py`), or cell by cell in an editor that knows `# %%`.
# It writes its pictures to the folder `first_steps/`. The model is part of the package: nothing is
# downloaded, and no GPU is needed.

# %%
from pathlib import Path

from textsam import TextSAM
from textsam.search.embed import Embedder
from textsam.search.index import MaskIndex
from textsam.search.records import MaskRow

here = Path(__file__).resolve().parent
photos = next(p for p in (here / "examples", here.parent / "examples") if p.is_dir())
out = Path("first_steps")
out.mkdir(exist_ok=True)

model = TextSAM.from_pretrained("tiny")

# %% [markdown]
# ## Phrases
#
# The photo is encoded once, when it is opened; each question after that is fast. A phrase finds
# every instance, maybe none, with two probabilities: that the phrase is in the photo at all, and,
# for each mask, that the phrase describes it.

# %%
view = model.open(photos / "bus.jpg")
wheels = view.segment(text="wheel")
print(wheels)
for wheel in wheels:
    print(f"{wheel.label}: text {wheel.score:.2f}, predicted IoU {wheel.iou:.2f}, {wheel.area} px")
wheels.save(out / "1_wheels.png")

# %% [markdown]
# If nothing is found, the result is empty and can explain why.

# %%
nothing = view.segment(text="giraffe")
print(len(nothing), "giraffes, presence", round(nothing.presence["giraffe"], 2))
print(nothing.explain().sentence("giraffe"))

# %% [markdown]
# A phrase can be excluded: the bus without its wheels.

# %%
body = view.segment(text="bus", exclude="wheel")
body.save(out / "2_bus_without_wheels.png")

# %% [markdown]
# ## Clicks and boxes
#
# One click may mean several objects, so it returns three masks, the most likely one first. Further
# clicks correct the mask; `undo` takes the last one back.

# %%
dog = model.open(photos / "dog.jpg")
readings = dog.segment(points=[(200, 290)])
print([f"{reading.area} px, IoU {reading.iou:.2f}" for reading in readings])
corrected = dog.click(170, 450)
fewer = dog.undo()
boxed = dog.segment(box=(60, 60, 350, 600))
boxed.save(out / "3_dog_in_a_box.png")

# %% [markdown]
# ## Everything
#
# Segments the object at each point of a grid, and keeps the masks that are good enough and no
# duplicates.

# %%
everything = view.everything()
print(len(everything), "masks; the largest covers", f"{everything.areas.max():,} px")
everything.save(out / "4_everything.png")

# %% [markdown]
# ## Search
#
# An index holds masks of many photos with two embeddings: what they are (masked CLIP) and what they
# look like (SAM's own features). This one is in memory; a folder or an object store works the same.

# %%
embedder = Embedder(model, latents="photo")
index = MaskIndex.open("memory://", model=embedder)
for name, phrases in (("bus", ["bus", "wheel"]), ("cat", ["cat"]), ("horses", ["horse", "person"])):
    path = photos / f"{name}.jpg"
    masks = model.segment(path, text=phrases)
    rows = [
        MaskRow(dataset="examples", image=str(path), rle=mask.rle, label=mask.label)
        for mask in masks
    ]
    index.add(rows, embedder.masks(model.open(path), masks.rles))
for result in index.search(text="animal", k=3):
    print(f"{result.cosine:.2f}  {result.label}  {Path(result.image).name}")
nearest = index.search(mask=wheels[0], k=2)
print("like the first wheel:", nearest["label"])
