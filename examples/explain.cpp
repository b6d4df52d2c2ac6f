// Explains one image with a package of naflow_fx, without Python.
//
//     naflow-fx export --format aoti --out explainer.pt2
//     T=$(python -c 'import torch; print(torch.__path__[0])')
//     F="-I$T/include -L$T/lib -Wl,-rpath,$T/lib,--no-as-needed -ltorch -ltorch_cpu -lc10"
//     g++ -std=c++20 examples/explain.cpp -o explain $F
//     ./explain explainer.pt2 image.f32
//
// image.f32: the network's input [3, H, W] as float32, preprocessed as `naflow-fx info` tells.
#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <iostream>
#include <iterator>
#include <sstream>

int main(int argc, char** argv) {
  if (argc != 3) return std::cerr << "usage: explain PACKAGE IMAGE\n", 2;
  torch::inductor::AOTIModelPackageLoader explainer(argv[1]);
  auto metadata = explainer.get_metadata();
  std::istringstream sizes(metadata["image_shape"]), names(metadata["outputs"]);
  std::vector<int64_t> shape{std::istream_iterator<int64_t>(sizes), {}};
  shape.insert(shape.begin(), 1);  // a batch of one image
  auto image = at::from_file(argv[2], false, c10::multiply_integers(shape)).reshape(shape);
  auto target = at::full({1}, -1, at::kLong);  // the predicted class
  auto results = explainer.run({image, target});
  std::string name;
  for (const auto& result : results)
    if (std::getline(names, name) && name.rfind("maps.", 0) == 0)
      std::cout << name.substr(5) << ' ' << result.sizes() << ' ' << result.max().item<float>()
                << '\n';
}
