"""Keys of `node.meta`, what passes leave for each other; values name nodes, never hold them."""

SITE = "naflow_site"  # str: name of the call site, as torchvision's feature extraction names it
VALUE = "naflow_value"  # what a traced node yields: TensorValue, a tuple of them, or a constant
HELD = "naflow_held"  # bool: made under torch.no_grad(): no gradient passes
TARGET = "naflow_target"  # bool: of the callable that is explained
SHAPE = "naflow_shape"  # tuple[int, ...]: static shape, -1 in the batch dimension
MERGED = "naflow_merged"  # bool: its batch dimension holds several rows per image
DTYPE = "naflow_dtype"  # torch.dtype
RULE = "naflow_rule"  # str: name of the rule of a canonical node
ACTIVE = "naflow_active"  # bool: a differentiable function of the input
LABELS = "naflow_labels"  # tuple[str, ...]: one letter per dimension
CAPTURES = "naflow_captures"  # dict[str, str]: capture -> node that holds it
IMPORTANCE = "naflow_importance"  # str: node that holds Lambda of this node
NORM = "naflow_norm"  # str: node that holds the norm of a Z
USED = "naflow_used"  # str: node that tells which of this node's neurons take part; absent: all do
TIMES = "naflow_times"  # str: node that holds how many live neurons read each of this node
STEP = "naflow_step"  # Step: which node holds Z of this node, and how it was made
PART = "naflow_part"  # str: the part of the program that a generated node belongs to
SOURCE = "naflow_source"  # str: the forward node that a generated node serves
WHERE = "naflow_where"  # str: file:line of the model's code
FORM = "naflow_form"  # of a GraphModule: what the model's output looks like; see `records`
READ = "naflow_read"  # of a GraphModule: paths of the tensors that the model's forward reads
