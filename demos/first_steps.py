# %% [markdown]
# # First steps with textsam
#
# Run it whole (`python demos/first_steps.py`), or cell by cell in an editor that knows `# %%`.
# It writes its pictures into the folder `first_steps/`. The model ships with the package: nothing
# is downloaded, and no GPU is needed.

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
# ## One photo, asked by name
#
# The photo is encoded once, when it is opened; each question after that is quick. A phrase gives
# every instance that it names, maybe none, with two probabilities: that the phrase is in the photo
# at all, and that it describes a mask.

# %%
view = model.open(photos / "bus.jpg")
wheels = view.segment(text="wheel")
print(wheels)
for wheel in wheels:
    print(f"{wheel.label}: text {wheel.score:.2f}, predicted IoU {wheel.iou:.2f}, {wheel.area} px")
wheels.save(out / "1_wheels.png")

# %% [markdown]
# What is not there comes back empty, and says why.

# %%
nothing = view.segment(text="giraffe")
print(len(nothing), "giraffes, presence", round(nothing.presence["giraffe"], 2))
print(nothing.explain().sentence("giraffe"))

# %% [markdown]
# Phrases can exclude: the bus without its wheels.

# %%
body = view.segment(text="bus", exclude="wheel")
body.save(out / "2_bus_without_wheels.png")

# %% [markdown]
# ## Clicks and boxes
#
# One click may mean several things, so it gives three readings, the likeliest first. Further clicks
# correct the mask; `undo` takes one back.

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
# A grid of points, each asked; what is good enough and no duplicate stays.

# %%
everything = view.everything()
print(len(everything), "masks; the largest covers", f"{everything.areas.max():,} px")
everything.save(out / "4_everything.png")

# %% [markdown]
# ## Search
#
# Masks of many photos go into an index, with what they are (masked CLIP) and what they look like
# (the SAM's own features). Here it lies in memory; a folder or an object store works alike.

# %%
embedder = Embedder(model, latents="photo")
index = MaskIndex.open("memory://", model=embedder)
for name, phrases in (("bus", ["bus", "wheel"]), ("cat", ["cat"]), ("horses", ["horse", "person"])):
    path = photos / f"{name}.jpg"
    found = model.segment(path, text=phrases)
    rows = [
        MaskRow(dataset="examples", image=str(path), rle=mask.rle, label=mask.label)
        for mask in found
    ]
    index.add(rows, embedder.masks(model.open(path), found.rles))
for result in index.search(text="animal", k=3):
    print(f"{result.score:.2f}  {result.row.label}  {Path(result.row.image).name}")
nearest = index.search(mask=wheels[0], k=2)
print("like the first wheel:", [result.row.label for result in nearest])
